"""What the fuzzers begin with: the smallest files that are accepted, in every encoding, and some that are refused."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import oarlock
from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.crooked import crooked_grid
from tests.fixtures.multiframe import SOP_CLASSES, write_multi_frame
from tests.fixtures.organs import AUTHORSHIP

SHAPE = (5, 7, 11)
COMPRESSED_SHAPE = (3, 37, 41)
"""JPEG 2000 halves an image five times."""

BOUNDARY = b"oar"
COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_LARGEST_IN_AN_UPLOAD = 20_000


def write_series(folder: Path, shape: tuple[int, int, int] = SHAPE) -> list[Path]:
    """A series of a few voxels; the file at index z holds slice z."""
    whole = crooked_grid()
    grid = Grid(
        *shape[1:],
        whole.origins_mm[: shape[0]],
        whole.row_direction,
        whole.column_direction,
        whole.row_spacing_mm,
        whole.column_spacing_mm,
    )
    hu = (np.arange(np.prod(shape)) % 1_009 - 900).astype(np.int16).reshape(shape)
    return write_ct_series(folder, hu, grid)


def write_structure_set(path: Path, files: Sequence[Path]) -> OARMasks:
    """Write an RTSTRUCT of three organs on that series, and give their masks."""
    header = check_headers(files)
    masks = OARMasks.empty([BY_NAME[name] for name in ("Brain", "Parotid_L", "SpinalCord")], header.grid.shape)
    for oar, box in zip(masks.oars, (np.s_[1:4, 1:6, 1:9], np.s_[2:4, 2:4, 2:5], np.s_[:, 3, 3]), strict=True):
        masks.bits[box] |= masks.bit(oar)
    write_rtstruct(path, masks, header, AUTHORSHIP)
    return masks


def slices(files: Sequence[Path]) -> list[bytes]:
    """The middle slice in every encoding that is read, and as another kind of object."""
    middle = files[SHAPE[0] // 2]
    found = [_recoded(middle, syntax) for syntax in _NATIVE]
    for syntax in (RLELossless, JPEGLSLossless):
        dataset = pydicom.dcmread(middle)
        dataset.compress(syntax, generate_instance_uid=False)
        found.append(_bytes(dataset))
    localizer = pydicom.dcmread(middle)
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return [*found, _bytes(localizer), found[1][132 + 12 :], b"no DICOM"]


def multi_frames(files: Sequence[Path], folder: Path) -> list[bytes]:
    """The series as one object, in both classes, whole and compressed."""
    found = []
    for name in SOP_CLASSES:
        path = write_multi_frame(folder / f"{name}.dcm", files, sop_class=name)
        found += [path.read_bytes(), _recoded(path, ImplicitVRLittleEndian)]
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        found.append(_bytes(dataset))
    return found


def structure_sets(path: Path) -> list[bytes]:
    """The RTSTRUCT in every encoding."""
    return [_recoded(path, syntax) for syntax in _NATIVE]


def codestreams(folder: Path) -> list[bytes]:
    """The compressed form of a slice, behind one byte that says how it is compressed."""
    files, found = write_series(folder, COMPRESSED_SHAPE), []
    for i, syntax in enumerate(COMPRESSED):
        dataset = pydicom.dcmread(files[0])
        dataset.compress(syntax, generate_instance_uid=False)
        found.append(bytes([i]) + next(generate_frames(dataset.PixelData, number_of_frames=1)))
    return found


def archives(files: Sequence[Path], structure_set: Path) -> list[bytes]:
    """Archives that are taken, and some that no export writes."""
    contents = [path.read_bytes() for path in (*files, structure_set)]
    nested = _zip([("inner.zip", _zip([("a", b"x")]))])
    names = ["../a", "/etc/passwd", "C:\\a", "a/../b", "\0", "ä/ö", "a", "a", "DICOM/"]
    return [
        _zip([(f"DICOM/{i}", content) for i, content in enumerate(contents)]),
        _zip([(f"{i}", content) for i, content in enumerate(contents[:3])], zipfile.ZIP_STORED),
        _zip([(name, b"x") for name in names]),
        _zip([("a", bytes(50_000))]),
        _zip([]),
        _zip([("a", b"x")], comment=b"c" * 30),
        nested,
    ]


def bodies(files: Sequence[Path], structure_set: Path) -> list[bytes]:
    """Bodies of each call that takes files, behind a line with the first letter of the call and the Content-Type."""
    images = [("files", path.read_bytes()) for path in files]
    drawn = structure_set.read_bytes()
    fields = [
        ("priority", b"low"),
        ("model", b"oarlock-hn"),
        ("profile", b"eclipse"),
        ("label", b"plan-4711"),
        ("supersedes", b"0e9c1f9a-7a49-4d0c-9f0e-3c1f6a1f2f11"),
        ("callback_url", b"https://pacs.test/a?b=c"),
    ]
    form = b"multipart/form-data; boundary=" + BOUNDARY
    return [
        b"j" + form + b"\n" + _form([*images, *fields, ("files", drawn)]),
        b"j" + form + b"\n" + _form([("files", _zip([(str(i), content) for i, (_, content) in enumerate(images)]))]),
        b"j" + b'multipart/form-data; boundary="oar"\n' + _form(images[:1]) + b"epilogue",
        b"jmultipart/form-data\n" + _form(images[:1]),
        b"c" + form + b"\n" + _form([*images[:3], ("predicted", drawn), ("reference", drawn)]),
        b"r" + form + b"\n" + _form([("reference", drawn)]),
        b"rapplication/dicom\n" + drawn,
        b"japplication/zip\n" + _zip([("a", b"x")]),
        b"jtext/plain; charset=utf-8\nx",
    ]


def names() -> list[bytes]:
    """Names of ROIs as clinics spell them, one a line, some with codes behind tabs."""
    spellings = Path(__file__).parents[1] / "fixtures" / "spellings.csv"
    lines = [line.split(",")[0] for line in spellings.read_text(encoding="utf-8").splitlines()[1:]]
    coded = "Parotid\t45289007\tSCT\t7771000\tSCT\nBrain\tFMA50801\tFMA\nx\t\t\n=Gehirn\tBrain"
    return [coded.encode(), *("\n".join(lines[i : i + 8]).encode() for i in range(0, len(lines), 8))]


def tables() -> list[bytes]:
    """The files that an operator writes, behind a letter that says which they are."""
    root = Path(oarlock.__file__).parent
    manifest = (root.parent / "models" / "oarlock-hn" / "manifest.toml").read_bytes()
    profiles = [(root / "rtstruct" / "tps" / f"{name}.toml").read_bytes() for name in ("eclipse", "generic")]
    own = b'description = "ours"\n[structure_set]\nlabel = "{model}"\nempty_rois = "keep"\n[contours]\nmax_points = 9\n[[roi]]\n'
    own += b'oar = "Brain"\nname = "Hirn"\ncolour = [1, 2, 3]\n'
    site = b'[names]\n"Hirn" = "Brain"\n"x" = ""\n[tolerances_mm]\nBrain = 3.0\n'
    return [b"m" + manifest, *(b"p" + profile for profile in profiles), b"p" + own, b"s" + site]


def small(contents: Iterable[bytes]) -> list[bytes]:
    """Those that a fuzzer gets through often enough."""
    return [content for content in contents if len(content) <= _LARGEST_IN_AN_UPLOAD]


def _recoded(path: Path, syntax: pydicom.uid.UID) -> bytes:
    dataset = pydicom.dcmread(path)
    if syntax == ExplicitVRBigEndian and "PixelData" in dataset:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return buffer.getvalue()


def _bytes(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _zip(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def _form(parts: Sequence[tuple[str, bytes]]) -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    files = {"files", "predicted", "reference"}
    body = b"".join(head % (BOUNDARY, name.encode(), b'; filename="a"' if name in files else b"", part) for name, part in parts)
    return body + b"--" + BOUNDARY + b"--\r\n"
