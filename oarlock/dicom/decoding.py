"""Compressed frames, decoded in a process of their own.

Decoders are programs of other makers in C, C++ and Rust, and what they are given came from outside. A few hundred kilobytes can
make one of them claim gigabytes, compute for minutes, or crash. So they run in a child that may open no file and no connection
(:mod:`oarlock.confinement`), may take a stated amount of memory and of CPU time for each frame, and may die: that costs the
series, and not the worker.

The child is this module run as a program. It reads requests from its standard input and answers on its standard output.
"""

import importlib
import os
import resource
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLSLossless, RLELossless

from oarlock.confinement import bare_environment, confine
from oarlock.dicom.codestreams import jpeg_precision
from oarlock.dicom.unusable import Unusable

_JPEG_LS: Final = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
"""CharLS through pyjpegls takes a quarter of the time of the default."""

_JPEG: Final = frozenset({"1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
"""GDCM decodes these: the only decoder of JPEG lossless and of 12 bits whose licence lets it be shipped with anything."""

ROOM_BYTES: Final = 256 * 2**20
ROOM_FOR_A_PIXEL_BYTES: Final = 32
"""Memory that the child may take beyond what it has when it is ready; decoders need 10 to 20 bytes for each pixel."""

SECONDS: Final = 3.0
SECONDS_FOR_A_MEGAPIXEL: Final = 1.0
"""CPU time that one frame may take; decoders need 0.05 to 0.5 s for a megapixel, and 0.3 s to be loaded."""

_STATISTICS: Final = "/proc/self/statm"
"""Where Linux says how much memory a process has."""

_LENGTHS: Final = struct.Struct(">II")
_REFUSED: Final = b"-"
_DECODED: Final = {b"u": np.dtype(np.uint16), b"i": np.dtype(np.int16)}
"""First byte of an answer; the pixels follow it."""

Pixels = npt.NDArray[Any]
"""Of one of these types."""


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """What a compressed frame is said to hold.

    One grey image of 16 bits a pixel.
    """

    transfer_syntax: str
    rows: int
    columns: int
    bits_stored: int
    signed: bool


class Decoder:
    """Decodes frames one after another, in a child process.

    The child is started for the first of them and ends with the context.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def decode(self, content: bytes, frame: FrameSpec) -> Pixels:
        """The stored values (y, x) of a frame.

        :raises Unusable: the decoder refused the frame, took too much memory or time for it, or died of it.
        """
        child = self._child = self._child or _start()
        request = orjson.dumps(asdict(frame))
        try:
            _write(child, _LENGTHS.pack(len(request), len(content)) + request + content)
            dtype = _DECODED.get(_read(child, 1))
            if dtype is not None:
                return np.frombuffer(_read(child, frame.rows * frame.columns * 2), dtype).reshape(frame.rows, frame.columns)
        except (BrokenPipeError, EOFError):
            raise Unusable(self._cause_of_death()) from None
        raise Unusable("its compressed data cannot be decoded, or hold an image of another size")

    def _cause_of_death(self) -> str:
        status = self._end()
        too_long = status == -signal.SIGPROF
        return f"its compressed data {'take too long to be decoded' if too_long else 'are more than a decoder can take'}"

    def _end(self) -> int:
        """End the child, and say how it ended."""
        child, self._child = self._child, None
        if child is None:
            return 0
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        return child.wait()


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # decoders write there what they were given
        env=bare_environment(),
    )


def _write(child: "subprocess.Popen[bytes]", content: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(content)
    child.stdin.flush()


def _read(child: "subprocess.Popen[bytes]", length: int) -> bytes:
    assert child.stdout is not None
    content = child.stdout.read(length)
    if len(content) < length:
        raise EOFError
    return content


# ── the child ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Decode what comes in until nothing does."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not be taken for an answer
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):  # it writes to its pipe, and to no file
        resource.setrlimit(kind, (0, 0))
    statistics = os.open(_STATISTICS, os.O_RDONLY) if Path(_STATISTICS).exists() else None
    _load_decoders()
    confine()
    while head := requests.read(_LENGTHS.size):
        request, content = (requests.read(length) for length in _LENGTHS.unpack(head))
        frame = FrameSpec(**orjson.loads(request))
        if statistics is not None:
            _limit_memory(statistics, ROOM_BYTES + ROOM_FOR_A_PIXEL_BYTES * frame.rows * frame.columns)
        _answer(answers, content, frame)


def _load_decoders() -> None:
    """Load what the decoders load when they are first used; later they cannot. A frame that no decoder takes makes them do so."""
    importlib.import_module("gdcm")
    for transfer_syntax in (RLELossless, JPEG2000Lossless, HTJ2KLossless, JPEGLSLossless):
        with suppress(Exception):
            _decoded_with_pydicom(bytes(64), FrameSpec(transfer_syntax, 8, 8, 16, signed=False))


def _answer(answers: IO[bytes], content: bytes, frame: FrameSpec) -> None:
    pixels = frame.rows * frame.columns
    signal.setitimer(signal.ITIMER_PROF, SECONDS + SECONDS_FOR_A_MEGAPIXEL * pixels / 1e6)  # its signal ends the process
    try:
        array = _decoded(content, frame)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # foreign decoders raise anything on damaged data; a panic in Rust is no Exception
        array = np.empty(0, dtype=np.uint16)  # not of the size that was asked for
    signal.setitimer(signal.ITIMER_PROF, 0)
    kind = array.dtype.kind.encode()
    good = array.shape == (frame.rows, frame.columns) and _DECODED.get(kind) == array.dtype
    answers.write(kind + array.tobytes() if good else _REFUSED)
    answers.flush()


def _limit_memory(statistics: int, room_bytes: int) -> None:
    """Counted from what the process has now, as the open file of the system says."""
    held = int(os.pread(statistics, 100, 0).split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = held + room_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _decoded(content: bytes, frame: FrameSpec) -> Pixels:
    if frame.transfer_syntax in _JPEG:
        return _decoded_with_gdcm(content, frame)
    return _decoded_with_pydicom(content, frame)


def _decoded_with_pydicom(content: bytes, frame: FrameSpec) -> Pixels:
    description: dict[str, Any] = {
        "rows": frame.rows,
        "columns": frame.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_representation": int(frame.signed),
        "bits_allocated": 16,
        "bits_stored": frame.bits_stored,
        "pixel_keyword": "PixelData",
    }
    plugin = "pyjpegls" if frame.transfer_syntax in _JPEG_LS else ""
    decoder = get_decoder(frame.transfer_syntax)
    return decoder.as_array(encapsulate([content]), raw=True, decoding_plugin=plugin, **description)[0]


def _decoded_with_gdcm(content: bytes, frame: FrameSpec) -> Pixels:
    """The samples of a JPEG codestream as it holds them; what the header says of bits and sign is applied by the caller.

    pydicom's own way to GDCM refuses 12 bits and believes the header's bits, which some files state wrongly.
    """
    import gdcm

    bits = jpeg_precision(content)
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(content)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frame.columns, frame.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(frame.transfer_syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, 0))
    samples = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM gives bytes as text
    return np.frombuffer(samples, "<i2" if frame.signed else "<u2").reshape(frame.rows, frame.columns)


if __name__ == "__main__":
    main()
