"""WADO-RS: files, frames and bulk data (PS3.18 8.7, 10.4).

In the form that is asked for.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_partial
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from oarlock.dicom.codestreams import whole_codestream
from oarlock.dicom.decoding import Decoder, FrameSpec
from oarlock.dicom.unusable import Unusable
from oarlock.errors import InvalidParameter
from service.errors import NotAcceptable, NotKept

DICOM: Final = "application/dicom"
OCTETS: Final = "application/octet-stream"
MULTIPART: Final = "multipart/related"
FRAMES: Final = "must be numbers of frames from 1, by commas, each once"
"""What a list of frames that is refused should have been."""

NATIVE: Final = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian})
_RLE: Final = "1.2.840.10008.1.2.5"
_MEDIA_TYPES: Final = {
    _RLE: "image/dicom-rle",
    **dict.fromkeys(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"), "image/jpeg"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"), "image/jpeg"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "image/jls"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "image/jp2"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.20{i}" for i in range(1, 4)), "image/jphc"),
}
"""Media types of compressed frames (PS3.18 Table 8.7.3-5)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One media range of Accept.

    Of a multipart answer the type of its parts; a transfer syntax, ``*``, or empty without one.
    """

    multipart: bool
    media_type: str
    transfer_syntax: str


def to_accepted(header: str | None) -> list[Accepted]:
    """What a caller takes, in the order of the header.

    Everything without one.
    """
    found = []
    for entry in _split(header or "*/*", ","):
        media_range, *parameters = (part.strip() for part in _split(entry, ";"))
        named = {
            name.strip().lower(): value.strip().strip('"') for name, _, value in (text.partition("=") for text in parameters)
        }
        syntax = named.get("transfer-syntax", "")
        multipart = media_range.lower() in {MULTIPART, "*/*", "multipart/*"}
        kind = named.get("type", "*/*") if media_range.lower() == MULTIPART else media_range
        found.append(Accepted(multipart, "*/*" if kind == "multipart/*" else kind.lower(), syntax))
    return found


def _split(text: str, separator: str) -> list[str]:
    """The parts of a header between separators that are not within quotation marks."""
    parts, quoted = [""], False
    for sign in text:
        quoted ^= sign == '"'
        if sign == separator and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def covers(kind: str, media_type: str) -> bool:
    """Whether a media range covers a media type."""
    return kind in {"*/*", media_type, f"{media_type.split('/', maxsplit=1)[0]}/*"}


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def wanted_syntax(accepted: Sequence[Accepted], *, single: bool) -> tuple[bool, str]:
    """Whether files are answered as parts, and their transfer syntax.

    The one that they are to have: empty for their own.

    :param single: whether there is one file, which may be the whole answer.
    :raises NotAcceptable: if the caller takes no DICOM files.
    """
    for one in accepted:
        if covers(one.media_type, DICOM) and (one.multipart or single):
            return one.multipart, one.transfer_syntax.replace("*", "")
    raise NotAcceptable(offered=[f'{MULTIPART}; type="{DICOM}"'])


def in_syntax(content: bytes, syntax: str, *, as_it_is: bool = False) -> tuple[bytes, str]:
    """A Part 10 file in a transfer syntax, and that syntax.

    :param syntax: empty to leave the file as it is.
    :param as_it_is: whether the file is too costly to be written anew.
    :raises NotAcceptable: if it is neither the file's own nor Explicit VR Little Endian.
    """
    stored = transfer_syntax_of(read_partial(BytesIO(content), stop_when=lambda *_: True, force=True))
    if syntax in {"", stored}:
        return content, stored
    if as_it_is or syntax != ExplicitVRLittleEndian:
        others = [] if as_it_is else [f"transfer-syntax={ExplicitVRLittleEndian}"]
        raise NotAcceptable(offered=[f"transfer-syntax={stored}", *others])
    dataset = pydicom.dcmread(BytesIO(content), force=True)
    if "PixelData" in dataset:
        pixels = b"".join(native_frames(dataset))
        dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian)
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return buffer.getvalue(), ExplicitVRLittleEndian


def transfer_syntax_of(dataset: Dataset) -> str:
    """The transfer syntax that a data set was read in."""
    meta = getattr(dataset, "file_meta", Dataset())
    return str(meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))


# ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def frame_numbers(text: str, dataset: Dataset) -> list[int]:
    """Frame numbers of an address.

    Each counts once (PS3.18 8.3.2): repeated, a short address would ask for gigabytes.

    :raises InvalidParameter: if they are not different numbers by commas.
    :raises NotKept: if there is no such frame.
    """
    parts = text.split(",")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 10]
    if len(set(numbers)) < len(parts):
        raise InvalidParameter(name="frames", reason=FRAMES)
    if "PixelData" not in dataset or not all(1 <= number <= count_of(dataset) for number in numbers):
        raise NotKept(what="frame")
    return numbers


def count_of(dataset: Dataset) -> int:
    """How many frames an image has."""
    return int(dataset.get("NumberOfFrames") or 1)


def frames(dataset: Dataset, numbers: Sequence[int], accepted: Sequence[Accepted]) -> tuple[str, list[bytes]]:
    """The content type of the parts, and the frames.

    As they are compressed, or their pixels in little endian.

    Octets without a transfer syntax are pixels (PS3.18 8.7.3.3.2).

    :raises NotAcceptable: if the caller takes neither.
    """
    stored = transfer_syntax_of(dataset)
    own = _MEDIA_TYPES.get(stored, OCTETS)
    for one in accepted:
        if not one.multipart:
            continue
        as_stored = {"*", stored} if one.media_type == OCTETS else {"*", stored, ""}
        if (
            stored not in NATIVE
            and one.transfer_syntax in as_stored
            and (covers(one.media_type, own) or one.media_type == OCTETS)
        ):
            compressed = list(generate_frames(dataset.PixelData, number_of_frames=count_of(dataset)))
            return f"{own}; transfer-syntax={stored}", [compressed[number - 1] for number in numbers]
        if covers(one.media_type, OCTETS) and one.transfer_syntax in {"", "*", ExplicitVRLittleEndian}:
            pixels = native_frames(dataset)
            return f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}", [pixels[number - 1] for number in numbers]
    raise NotAcceptable(offered=[f'{MULTIPART}; type="{kind}"' for kind in sorted({own, OCTETS})])


def native_frames(dataset: Dataset) -> list[bytes]:
    """The pixels of every frame, in little endian.

    Frames of single bits begin with a byte of their own.

    :raises NotAcceptable: if they are compressed and cannot be decoded.
    """
    stored, pixels = transfer_syntax_of(dataset), int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    content, count = dataset.PixelData, count_of(dataset)
    if stored not in NATIVE:
        return _decoded(dataset, stored)
    if dataset.BitsAllocated == 1:
        bits = np.unpackbits(np.frombuffer(content, np.uint8), count=count * pixels, bitorder="little").reshape(count, pixels)
        return [np.packbits(frame, bitorder="little").tobytes() for frame in bits]
    size = pixels * int(dataset.BitsAllocated) // 8
    if stored == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        content = np.frombuffer(content, ">u2").astype("<u2").tobytes()
    return [content[i * size : (i + 1) * size] for i in range(count)]


def _decoded(dataset: Dataset, stored: str) -> list[bytes]:
    """Frames that a process apart has decoded (ADR 13)."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    spec = FrameSpec(stored, rows, columns, int(dataset.BitsStored), bool(dataset.PixelRepresentation))
    found = []
    try:
        with Decoder() as decoder:
            for frame in generate_frames(dataset.PixelData, number_of_frames=count_of(dataset)):
                content = frame if stored == _RLE else whole_codestream(frame, rows, columns)
                found.append(decoder.decode(content, spec).astype("<u2", copy=False).tobytes())
    except Unusable as error:
        raise NotAcceptable(offered=[f"transfer-syntax={stored}"]) from error
    return found


# ── answers of parts ──────────────────────────────────────────────────────────────────────────────────────────────────


class Parts:
    """A ``multipart/related`` body (RFC 2387), a part at a time."""

    def __init__(self, media_type: str) -> None:
        self._boundary = secrets.token_hex(16)
        self.content_type = f'{MULTIPART}; type="{media_type}"; boundary={self._boundary}'

    def body(self, parts: Iterable[tuple[str, bytes, str]]) -> Iterator[bytes]:
        """The bytes of parts.

        Each is given with its content type and its address (may be empty).
        """
        for content_type, content, location in parts:
            head = f"--{self._boundary}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n"
            head += f"Content-Location: {location}\r\n" if location else ""
            yield f"{head}\r\n".encode("ascii")
            yield content
            yield b"\r\n"
        yield f"--{self._boundary}--\r\n".encode("ascii")
