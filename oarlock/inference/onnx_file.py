"""What lies in the bytes of an ONNX file.

So far as it decides whether they are the whole model.

A tensor of an ONNX file may name another file that holds its values. The hash of the ONNX file then says nothing of them, and
ONNX Runtime would look for that file in the working folder. So every tensor is looked at, by a walk over the fields of the
protocol buffer (https://protobuf.dev/programming-guides/encoding, onnx/onnx.proto), before the bytes are given to the runtime.
"""

from collections.abc import Iterator, Mapping
from typing import Final

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MAX_DEPTH: Final = 64

_TENSOR: Final = "tensor"
_EXTERNAL: Final = {13, 14}
"""TensorProto.external_data and TensorProto.data_location."""

_FIELDS: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""For each message the numbers of its fields that lead to tensors, with the message that they hold."""


class NotWhole(Exception):
    """The bytes are not one whole ONNX model; the text says why."""


def check_is_whole(content: bytes) -> None:
    """See that a model's bytes hold every value of the model.

    :raises NotWhole: if a tensor lies in another file, or the bytes are not ONNX.
    """
    if content[4:8] == b"ORTM":
        raise NotWhole("it is in ONNX Runtime's own format, which Oarlock does not read")
    _walk(memoryview(content), "model", 0)


def _walk(message: memoryview, kind: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise NotWhole("its graphs are nested too deep")
    for number, wire, value in _fields(message):
        if kind == _TENSOR:
            if number in _EXTERNAL and (wire != _VARINT or value):
                raise NotWhole("it keeps values in another file (external data)")
        elif (inner := _FIELDS[kind].get(number)) is not None:
            if not isinstance(value, memoryview):
                raise NotWhole("it is not an ONNX file")
            _walk(value, inner, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int, "int | memoryview"]]:
    """(number, wire type, value) of each field; a value of fixed size is given as 0."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        value: int | memoryview = 0
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire == _BYTES:
            size, at = _varint(message, at)
            value = message[at : at + size]
            at += size
        elif wire in {_EIGHT, _FOUR}:
            at += 8 if wire == _EIGHT else 4
        else:
            raise NotWhole("it is not an ONNX file")
        if at > len(message):
            raise NotWhole("it is not an ONNX file, or ends too early")
        yield key >> 3, wire, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise NotWhole("it is not an ONNX file, or ends too early")
