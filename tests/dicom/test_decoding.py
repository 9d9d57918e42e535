"""What hostile or broken compressed slices can do: be refused, and nothing else."""

import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from oarlock import errors
from oarlock.confinement import bare_environment, lacking
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.ct.writer import write_ct_series
from oarlock.dicom.codestreams import whole_codestream
from oarlock.dicom.decoding import Decoder, FrameSpec
from oarlock.dicom.unusable import Unusable
from oarlock.geometry.grid import Grid
from tests.fixtures.jpeg_lossless import encode

ROOT = Path(__file__).parents[2]
SIZE = (64, 48)
SIZ = b"\xff\x4f\xff\x51"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three slices of noise."""
    origins = np.array([[0, 0, 2.5 * z] for z in range(3)])
    grid = Grid(*SIZE, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.1, 0.9)
    return write_ct_series(tmp_path, np.random.default_rng(4).integers(-90, 90, grid.shape).astype(np.int16), grid)


def frame_of(path: Path, syntax: UID) -> bytes:
    dataset = dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def read(files: list[Path], syntax: str, frame: bytes) -> np.ndarray:
    """The series, its middle slice compressed to a given frame."""
    dataset = dcmread(files[1])
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(files[1])
    return read_ct_series(check_headers(files)).hu


# ── JPEG 2000 ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def sized(frame: bytes, **values: int) -> bytes:
    """A codestream that states other sizes: of the image, its tiles and their origins (ISO/IEC 15444-1 A.5.1)."""
    places = {"width": 8, "height": 12, "tile_width": 24, "tile_height": 28}
    changed = bytearray(frame)
    for name, value in values.items():
        struct.pack_into(">I", changed, frame.index(SIZ) + places[name], value)
    return bytes(changed)


def with_components(frame: bytes, count: int) -> bytes:
    at = frame.index(SIZ) + 2
    head = bytearray(frame[: at + 40] + frame[at + 40 : at + 43] * count)
    struct.pack_into(">H", head, at + 2, 38 + 3 * count)
    struct.pack_into(">H", head, at + 38, count)
    return bytes(head) + frame[at + 43 :]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


JP2 = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
JP2_HEADER = box(b"jp2h", box(b"ihdr", struct.pack(">IIHBBBB", *SIZE, 1, 15, 7, 0, 0)) + box(b"colr", b"\x01\0\0\0\0\0\x11"))


@pytest.mark.slow
def test_a_codestream_in_its_file_format_is_read(files: list[Path]) -> None:
    expected = read_ct_series(check_headers(files)).hu
    jp2 = JP2 + JP2_HEADER + box(b"jp2c", frame_of(files[1], JPEG2000Lossless))
    np.testing.assert_array_equal(read(files, JPEG2000Lossless, jp2), expected)


J2K_ATTACKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "16,384 components, 9 GB in a decoder": (lambda frame: with_components(frame, 16_384), "more than one component"),
    "three components": (lambda frame: with_components(frame, 3), "more than one component"),
    "tiles that are not there, made up by decoders": (lambda frame: sized(frame, tile_width=16, tile_height=16), "tiles"),
    "tiles of no size": (lambda frame: sized(frame, tile_width=0), "tiles"),
    "a million tiles": (lambda frame: sized(frame, tile_width=1, tile_height=1), "tiles"),
    "a harmless size in front of the one that counts": (
        lambda frame: JP2 + box(b"free", frame[:60]) + JP2_HEADER + box(b"jp2c", sized(frame, width=60_000, height=60_000)),
        "no frame header|another size|cut off|tiles",
    ),
    "no end of its main header": (lambda frame: frame[:90] + b"\xff\xd9", "cut off"),
}


@pytest.mark.parametrize("attack", J2K_ATTACKS)
def test_a_jpeg_2000_codestream_that_is_not_what_it_says_is_refused_before_it_is_decoded(
    attack: str, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, reason = J2K_ATTACKS[attack]
    frame = edit(frame_of(files[1], JPEG2000Lossless))
    monkeypatch.setattr(Decoder, "decode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(errors.UnsupportedPixelData, match=reason):
        read(files, JPEG2000Lossless, frame)


# ── JPEG and JPEG-LS ──────────────────────────────────────────────────────────────────────────────────────────────────

SOF_LS = b"\xff\xf7"


def headed(frame: bytes, count: int) -> bytes:
    """A JPEG-LS image that claims so many components."""
    at = frame.index(SOF_LS)
    length = struct.unpack_from(">H", frame, at + 2)[0]
    components = b"".join(bytes([i + 1, 0x11, 0]) for i in range(count))
    return (
        frame[:at]
        + SOF_LS
        + struct.pack(">H", 8 + 3 * count)
        + frame[at + 4 : at + 9]
        + bytes([count])
        + components
        + (frame[at + 2 + length :])
    )


def other_size(frame: bytes) -> bytes:
    """A second frame header behind the first, of a huge image."""
    at = frame.index(SOF_LS)
    end = at + 2 + struct.unpack_from(">H", frame, at + 2)[0]
    huge = bytearray(frame[at:end])
    struct.pack_into(">HH", huge, 5, 65_535, 65_535)
    return frame[:end] + bytes(huge) + frame[end:]


def hierarchical(frame: bytes) -> bytes:
    """The size of a hierarchical image stands in another marker, in front of the frame header."""
    at = frame.index(SOF_LS)
    return frame[:at] + b"\xff\xde" + struct.pack(">HBHHB3B", 11, 16, 65_535, 65_535, 1, 1, 0x11, 0) + frame[at:]


def oversized(frame: bytes) -> bytes:
    """An LSE marker that gives the image another size (ISO/IEC 14495-1 C.2.4.1.4)."""
    return frame[:2] + b"\xff\xf8" + struct.pack(">HBBII", 12, 4, 4, 100_000, 100_000) + frame[2:]


JPEG_ATTACKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "255 components": (lambda frame: headed(frame, 255), "more than one component"),
    "two frame headers": (other_size, "more than one frame header"),
    "a hierarchical image": (hierarchical, "hierarchical"),
    "a size of its own": (oversized, "another size"),
    "something in front of the image": (lambda frame: b"\0\0" + frame, "no frame header"),
    "two hundred scans, each a decoder's work": (
        lambda frame: frame[:-2] + frame[frame.index(b"\xff\xda") : -2] * 3 + frame[-2:],
        "more than one scan",
    ),
    "two images": (lambda frame: frame + frame, "more than one scan"),
    "no scan": (lambda frame: frame[: frame.index(b"\xff\xda")] + b"\xff\xd9", "no scan"),
}


@pytest.mark.parametrize("attack", JPEG_ATTACKS)
def test_a_jpeg_codestream_that_is_not_one_scan_of_one_image_is_refused_before_it_is_decoded(
    attack: str, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, reason = JPEG_ATTACKS[attack]
    frame = edit(frame_of(files[1], JPEGLSLossless).rstrip(b"\0"))
    monkeypatch.setattr(Decoder, "decode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(errors.UnsupportedPixelData, match=reason):
        read(files, JPEGLSLossless, frame)


# ── what no look at the codestream tells ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder() as made:
        yield made


@pytest.fixture(scope="module")
def lasting_decoder() -> Iterator[Decoder]:
    """For tests that leave its child alive."""
    with Decoder() as made:
        yield made


def described(syntax: str, rows: int = SIZE[0], columns: int = SIZE[1]) -> FrameSpec:
    return FrameSpec(syntax, rows, columns, bits_stored=16, signed=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited where the system says how much is held")
def test_a_frame_that_claims_more_memory_than_its_image_can_need_is_given_up(files: list[Path], decoder: Decoder) -> None:
    """16,384 components of 640 kB each, as a decoder that believed them would allocate."""
    frame = with_components(sized(frame_of(files[1], JPEG2000Lossless), width=400, height=400), 16_384)
    with pytest.raises(Unusable):
        decoder.decode(frame, described(JPEG2000Lossless, 400, 400))


@pytest.mark.slow
def test_run_lengths_that_unpack_to_far_more_than_the_image_are_given_up(decoder: Decoder) -> None:
    """Two segments of 30 MB that repeat a byte 128 times for every two: 4 GB."""
    run = b"\x81\0" * 15_000_000
    frame = struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13) + run + run
    with pytest.raises(Unusable):
        decoder.decode(frame, described(RLELossless))


def endless() -> "subprocess.Popen[bytes]":
    """A child whose decoder never comes to an end, and that gives a frame 50 ms of CPU time."""
    code = "from oarlock.dicom import decoding as d; d.SECONDS = 0.05; d._decoded = lambda *_: sum(iter(bool, 1)); d.main()"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=bare_environment()
    )


@pytest.mark.slow
def test_a_frame_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(np.zeros(SIZE, dtype=np.uint16), 12)
    monkeypatch.setattr("oarlock.dicom.decoding._start", endless)
    with Decoder() as decoder:
        with pytest.raises(Unusable, match="take too long"):
            decoder.decode(content, described(JPEGLosslessSV1))
        monkeypatch.undo()
        decoder.decode(content, described(JPEGLosslessSV1))


@pytest.mark.slow
def test_a_decoder_that_dies_costs_its_frame_and_not_the_next_one(files: list[Path], decoder: Decoder) -> None:
    frame = frame_of(files[1], RLELossless)
    expected = dcmread(files[1]).pixel_array
    np.testing.assert_array_equal(decoder.decode(frame, described(RLELossless)), expected)
    child = decoder._child
    assert child is not None
    child.kill()
    with pytest.raises(Unusable, match="more than a decoder can take"):
        decoder.decode(frame, described(RLELossless))
    np.testing.assert_array_equal(decoder.decode(frame, described(RLELossless)), expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system does not show the environment of a process")
def test_a_decoder_knows_no_secret_of_the_service_and_writes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OARLOCK_DEIDENTIFY_KEY", "OARLOCK_CALLBACK_SECRETS", "DATABASE_URL"):
        monkeypatch.setenv(name, "canary")
    with Decoder() as own:
        with pytest.raises(Unusable):
            own.decode(bytes(64), described(RLELossless))
        assert own._child is not None
        process = Path("/proc") / str(own._child.pid)
        assert b"canary" not in (process / "environ").read_bytes()
        assert re.search(r"Max file size\s+0\s+0\s", (process / "limits").read_text())


@pytest.mark.slow
@pytest.mark.skipif(bool(lacking()), reason="this system cannot confine a process")
@pytest.mark.parametrize(
    ("attempt", "decoded"),
    [("0", True), ("open('/etc/passwd').fileno()", False), ("socket.socket().fileno()", False), ("os.fork()", False)],
)
def test_a_decoder_opens_no_file_and_no_connection_and_makes_no_process(
    attempt: str, decoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that is taken over, and answers with an image if its attempt succeeds."""
    code = (
        "import os, socket, numpy; from oarlock.dicom import decoding as d\n"
        f"d._decoded = lambda content, frame: numpy.full((frame.rows, frame.columns), {attempt}, numpy.uint16)\n"
        "d.main()"
    )

    def taken_over() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=bare_environment()
        )

    monkeypatch.setattr("oarlock.dicom.decoding._start", taken_over)
    with Decoder() as decoder, nullcontext() if decoded else pytest.raises(Unusable, match="cannot be decoded"):
        decoder.decode(bytes(8), described(RLELossless))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not show the threads of a process")
def test_a_decoder_is_alone_in_its_process_when_it_is_confined() -> None:
    """Landlock would leave other threads as they are."""
    code = "import os; from oarlock.dicom import decoding as d; d._load_decoders(); print(*os.listdir('/proc/self/task'))"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT, env=bare_environment()
    )
    assert len(child.stdout.split()) == 1


@pytest.mark.slow
@pytest.mark.skipif(bool(lacking()), reason="this system cannot confine a process")
def test_a_process_with_other_threads_is_not_said_to_be_confined_and_its_calls_are_taken_from_all_of_them() -> None:
    code = (
        "import socket, threading, oarlock.confinement as c\n"
        "go, said = threading.Event(), []\n"
        "def attempt():\n    go.wait()\n    try: socket.socket()\n    except OSError as error: said.append(error.errno)\n"
        "other = threading.Thread(target=attempt); other.start()\n"
        "try: c.confine()\n"
        "except c.ConfinementFailed as error: said.append(str(error))\n"
        "c._take_calls(); go.set(); other.join(); print(said)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT, env=bare_environment()
    )
    assert child.stdout == "['2 threads', 1]\n"  # EPERM


@pytest.mark.slow
def test_no_decoder_stays_behind(files: list[Path]) -> None:
    with Decoder() as decoder:
        decoder.decode(frame_of(files[1], RLELossless), described(RLELossless))
        child = decoder._child
    assert child is not None
    assert child.returncode == 0


def test_an_uncompressed_series_starts_no_decoder(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oarlock.dicom.decoding._start", lambda: pytest.fail("a decoder was started"))
    read_ct_series(check_headers(files))


# ── any bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(data=st.data(), syntax=st.sampled_from([JPEG2000Lossless, JPEGLSLossless]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_flipped_or_missing_bytes_make_a_look_at_a_codestream_fail_otherwise(
    data: st.DataObject, syntax: UID, files: list[Path]
) -> None:
    frame = bytearray(frame_of(files[1], syntax))
    for at, junk in data.draw(st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=6)), max_size=4)):
        frame[at : at + len(junk)] = junk
    del frame[data.draw(st.integers(0, len(frame))) :]
    frame += data.draw(st.sampled_from([b"", b"\xff\xd9", b"\xff\xd9\0"]))
    with suppress(Unusable):
        assert whole_codestream(bytes(frame), *SIZE) in frame


# ── JPEG lossless ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bits", range(9, 17))
@pytest.mark.parametrize("stored", [12, 16])
def test_jpeg_lossless_gives_the_samples_that_were_encoded_whatever_the_header_says(
    bits: int, stored: int, lasting_decoder: Decoder
) -> None:
    """The codestream's own precision counts; the header's bits and sign, which may lie, are applied to what comes out."""
    samples = np.random.default_rng(bits).integers(0, 1 << bits, SIZE).astype(np.uint16)
    samples[0, :4] = [0, (1 << bits) - 1, 0, 1 << (bits - 1)]
    content = whole_codestream(encode(samples, bits), *SIZE)
    for syntax in ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"):
        for signed in (False, True):
            found = lasting_decoder.decode(content, FrameSpec(syntax, *SIZE, stored, signed))
            assert found.dtype == (np.int16 if signed else np.uint16)
            np.testing.assert_array_equal(found.view(np.uint16), samples)


def test_jpeg_lossless_of_eight_bits_and_damaged_ones_are_refused(lasting_decoder: Decoder) -> None:
    samples = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE)
    eight = encode(samples % 256, 8)
    cut = encode(samples, 12)[:100] + b"\xff\xd9"
    for content in (eight, cut[:20], b""):
        with pytest.raises(Unusable):
            lasting_decoder.decode(content, FrameSpec("1.2.840.10008.1.2.4.70", *SIZE, 12, False))
