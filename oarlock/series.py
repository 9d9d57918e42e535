"""DICOM files to one CT series: the gatekeeper of the request, and the reader of the worker.

``check_headers`` answers while the sender is still listening. It reads a few kilobytes of each file, sorts out what is no CT
image, and lets through exactly one complete stack of parallel slices in one frame of reference. ``docs/dicom.md`` tabulates
what is accepted, corrected with a warning, or refused, each with its clause of the standard.
"""

import filecmp
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import UID

from oarlock import identity
from oarlock import pixels as pixel_data
from oarlock.elements import MEDIA_SOP_CLASS, SOP_CLASS, Damaged, Header, read_header
from oarlock.errors import (
    DuplicateInstance,
    GeometryMissing,
    InstanceUnreadable,
    MixedFrameOfReference,
    MixedPatients,
    MixedSeries,
    MultiFrameCT,
    NoCTImages,
    NotDicom,
    SeriesTooLarge,
    TooManySlices,
)
from oarlock.geometry import Grid
from oarlock.jobs import JobWarning, SeriesFacts
from oarlock.pixels import StoredPixels
from oarlock.stack import Plane, to_grid

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT: Final = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
MEDIA_DIRECTORY: Final = "1.2.840.10008.1.3.10"

MAX_VOXELS: Final = 2**30
"""Most voxels of a series: 2 GiB of Hounsfield units, 1,024 slices of 1,024 × 1,024."""

MAX_ELEMENTS: Final = 5_000_000
"""Most elements in the headers of an upload, nested ones included: some seconds of walking. Scanners write 100 to 2,000 each."""

IMAGE_TYPE, SOP_INSTANCE, MODALITY = 0x00080008, 0x00080018, 0x00080060
BODY_PART, THICKNESS = 0x00180015, 0x00180050
STUDY, SERIES, FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00200052
POSITION, ORIENTATION, SPACING = 0x00200032, 0x00200037, 0x00280030
WANTED: Final = (
    frozenset({IMAGE_TYPE, SOP_CLASS, SOP_INSTANCE, MODALITY, BODY_PART, THICKNESS, STUDY, SERIES})
    | {FRAME_OF_REFERENCE, POSITION, ORIENTATION, SPACING}
    | pixel_data.WANTED
    | identity.WANTED
)

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_DS: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NEAR_HEAD_AND_NECK: Final = re.compile(
    r"HEAD|NECK|BRAIN|SKULL|FACE|JAW|ORBIT|EYE|EAR|IAC|SINUS|PHARYN|LARYN|TONGUE|MAXIL|MANDIB|CSPINE|HN|H&N"
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One CT image of the series.

    ``position`` is that of the file in the upload, from 1; ``pixels`` how its pixel data are stored.
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    position: int
    pixels: StoredPixels | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SeriesHeader:
    """One CT series that can be contoured, before its pixels are read.

    ``instances[z]`` is the file of slice z of the grid; ``structure_sets`` the RTSTRUCT files of the upload in its order;
    ``template`` the patient and study attributes in the CT's character set (see :mod:`oarlock.identity`).
    """

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    grid: Grid
    instances: tuple[Instance, ...]
    structure_sets: tuple[Path, ...]
    template: pydicom.Dataset
    warnings: tuple[JobWarning, ...]

    def facts(self) -> SeriesFacts:
        """What the API tells about the series."""
        return SeriesFacts(
            study_instance_uid=self.study_instance_uid,
            series_instance_uid=self.series_instance_uid,
            frame_of_reference_uid=self.frame_of_reference_uid,
            slices=len(self.instances),
            spacing_mm=self.grid.spacing_mm,
        )


@dataclass(frozen=True)
class CTSeries:
    """A CT series with its Hounsfield units: ``hu`` is (z, y, x) int16 on ``header.grid``, read-only."""

    header: SeriesHeader
    hu: npt.NDArray[np.int16]


def check_headers(files: Sequence[Path], *, max_slices: int = 1024) -> SeriesHeader:
    """Let one complete CT series through, or say why there is none.

    Reads no pixel data. The result is the same for every order of the files, but for the positions and the order of
    ``structure_sets``.

    :param files: the files of the upload, in its order; messages count them from 1.
    :raises SeriesError: a leaf of it, with the files and millimetres it is about.
    """
    upload = _sort_out(files)
    slices = upload.slices()
    study, series = _one_series(slices)
    if len(slices) > max_slices:
        raise TooManySlices(found=len(slices), limit=max_slices)
    stored = [pixel_data.check_pixels(file.header, file.position) for file in slices]
    _check_volume(stored)
    grid, order, geometry_warnings = to_grid([_plane(file) for file in slices])
    frame_of_reference = _frame_of_reference(slices)
    instances = tuple(_instance(slices[i], stored[i]) for i in order)
    template, identity_warnings = identity.to_template(slices[order[0]].header.values)
    warnings = [*upload.warnings, *geometry_warnings, *_pixel_warnings(slices, stored), *_body_part(slices), *identity_warnings]
    return SeriesHeader(
        study, series, frame_of_reference, grid, instances, tuple(upload.structure_sets), template, tuple(warnings)
    )


def read_ct_series(header: SeriesHeader) -> CTSeries:
    """Read the Hounsfield units of a checked series; memory is one int16 volume and one slice.

    :raises UnsupportedPixelData: a slice cannot be decoded.
    """
    slices = [(instance.path, instance.position, instance.pixels) for instance in header.instances if instance.pixels]
    if len(slices) != len(header.instances):
        raise ValueError("the header was not made by check_headers")
    hu = pixel_data.read_volume(slices)
    hu.setflags(write=False)
    return CTSeries(header, hu)


# ── sorting out ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _File:
    """A DICOM file of the upload."""

    position: int
    header: Header

    def uid(self, tag: int) -> str:
        """A UID, or empty if it is absent or not valid (PS3.5 9.1)."""
        text = self.header.text(tag)
        return text if len(text) <= 64 and _UID.fullmatch(text) else ""


class _Upload:
    """The files of an upload by what they are."""

    def __init__(self) -> None:
        self.ct: list[_File] = []
        self.structure_sets: list[Path] = []
        self.warnings: list[JobWarning] = []
        self.set_aside: Counter[str] = Counter()
        self.not_dicom = 0

    def slices(self) -> list[_File]:
        """The axial CT images, each once, in the order of their UIDs; what was set aside becomes a warning."""
        if not self.ct:
            raise NoCTImages(found=[*self.set_aside, *(["RT structure set"] if self.structure_sets else [])])
        self.warnings += _set_aside_warnings(self.set_aside, self.not_dicom)
        unique, doubles = _without_doubles(self.ct)
        if doubles:
            detail = f"{doubles} file(s) were sent more than once, byte for byte the same; each is used once."
            self.warnings.append(JobWarning("series.duplicate_ignored", detail))
        return unique


def _sort_out(files: Sequence[Path]) -> _Upload:
    upload = _Upload()
    visited = 0
    for position, path in enumerate(files, start=1):
        header = _read(path, position)
        if header is None:
            upload.not_dicom += 1
            continue
        _place(upload, _File(position, header))
        visited += header.visited
        if visited > MAX_ELEMENTS:
            raise InstanceUnreadable(position=position, reason=f"the headers up to it hold more than {MAX_ELEMENTS:,} elements")
    if files and upload.not_dicom == len(files):
        raise NotDicom(files=len(files))
    return upload


def _read(path: Path, position: int) -> Header | None:
    try:
        return read_header(path, WANTED, keep=lambda sop_class: sop_class == CT_IMAGE)
    except Damaged as reason:
        raise InstanceUnreadable(position=position, reason=str(reason)) from None


def _place(upload: _Upload, file: _File) -> None:
    sop_class = file.header.text(SOP_CLASS) or file.header.text(MEDIA_SOP_CLASS)
    if sop_class in MULTI_FRAME_CT:
        raise MultiFrameCT
    if sop_class == RT_STRUCTURE_SET:
        upload.structure_sets.append(file.header.path)
    elif sop_class != CT_IMAGE:
        upload.set_aside[_kind(sop_class)] += 1
    elif "LOCALIZER" in _image_type(file.header):
        upload.set_aside[_LOCALIZER] += 1
    elif file.header.text(MODALITY) != "CT":
        upload.set_aside["CT image of another modality"] += 1
    elif _frames(file.header) > 1:
        raise MultiFrameCT
    else:
        upload.ct.append(file)


_LOCALIZER: Final = "CT localizer"
_SECONDARY: Final = "secondary capture"


def _kind(sop_class: str) -> str:
    """The name of a SOP class in pydicom's dictionary; never the UID itself, which the sender chose."""
    if sop_class == MEDIA_DIRECTORY:
        return "DICOMDIR"
    if not sop_class:
        return "DICOM object without SOP class"
    if sop_class.startswith(SECONDARY_CAPTURE):
        return _SECONDARY
    uid = UID(sop_class)
    return uid.name.removesuffix(" Storage") if uid.name != uid else "private DICOM object"


def _image_type(header: Header) -> list[str]:
    return [value.strip() for value in header.text(IMAGE_TYPE).split("\\")]


def _frames(header: Header) -> int:
    text = header.text(pixel_data.FRAMES)
    return int(text) if text.isdigit() and len(text) <= 9 else 1


def _set_aside_warnings(kinds: Counter[str], not_dicom: int) -> list[JobWarning]:
    found = []
    for kind, count in sorted(kinds.items()):
        code = {_LOCALIZER: "series.localizer_set_aside", _SECONDARY: "series.secondary_capture_set_aside"}.get(kind)
        detail = f"{count} file(s) are no axial CT image ({kind}) and were set aside."
        found.append(JobWarning(code or "series.other_object_set_aside", detail))
    if not_dicom:
        found.append(JobWarning("series.not_dicom_set_aside", f"{not_dicom} file(s) are not DICOM and were set aside."))
    return found


def _without_doubles(files: Iterable[_File]) -> tuple[list[_File], int]:
    """Files by SOP Instance UID, each once, and how many were the same bytes again.

    :raises DuplicateInstance: the same UID with other bytes.
    """
    by_uid: dict[str, _File] = {}
    doubles = 0
    for file in files:
        uid = file.uid(SOP_INSTANCE)
        if not uid:
            raise InstanceUnreadable(position=file.position, reason="it has no valid SOP Instance UID")
        first = by_uid.setdefault(uid, file)
        if first is not file:
            if not filecmp.cmp(first.header.path, file.header.path, shallow=False):
                raise DuplicateInstance(first=first.position, second=file.position)
            doubles += 1
    return [by_uid[uid] for uid in sorted(by_uid)], doubles


# ── one series ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _one_series(slices: Sequence[_File]) -> tuple[str, str]:
    """Study and series UID that all slices share, with one patient and at most one frame of reference."""
    series = Counter((_required_uid(file, STUDY), _required_uid(file, SERIES)) for file in slices)
    if len(series) > 1:
        raise MixedSeries(images=list(series.values()))
    for tag in (identity.PATIENT_ID, identity.PATIENT_NAME):
        _check_patient(slices, tag)
    frames = {file.header.text(FRAME_OF_REFERENCE) for file in slices} - {""}
    if len(frames) > 1:
        raise MixedFrameOfReference(found=len(frames))
    return next(iter(series))


def _required_uid(file: _File, tag: int) -> str:
    uid = file.uid(tag)
    if not uid:
        name = "Study Instance UID" if tag == STUDY else "Series Instance UID"
        raise InstanceUnreadable(position=file.position, reason=f"it has no valid {name}")
    return uid


def _frame_of_reference(slices: Sequence[_File]) -> str:
    """Never invented: contours without it could be laid over any scan. Asked last, as a gap in the series is the better news."""
    for file in slices:
        if not file.uid(FRAME_OF_REFERENCE):
            raise GeometryMissing(position=file.position, keyword="FrameOfReferenceUID")
    return slices[0].uid(FRAME_OF_REFERENCE)


def _check_patient(slices: Sequence[_File], tag: int) -> None:
    first = slices[0]
    for file in slices:
        if file.header.values.get(tag, b"").strip(b" \0") != first.header.values.get(tag, b"").strip(b" \0"):
            raise MixedPatients(first=first.position, second=file.position)


def _check_volume(stored: Sequence[StoredPixels]) -> None:
    rows, columns = max(pixels.rows for pixels in stored), max(pixels.columns for pixels in stored)
    if len(stored) * rows * columns > MAX_VOXELS:
        raise SeriesTooLarge(slices=len(stored), rows=rows, columns=columns, limit=MAX_VOXELS)


def _instance(file: _File, stored: StoredPixels) -> Instance:
    header = file.header
    return Instance(header.path, header.text(SOP_INSTANCE), header.text(SOP_CLASS), file.position, stored)


# ── geometry of one slice ─────────────────────────────────────────────────────────────────────────────────────────────


def _plane(file: _File) -> Plane:
    """The image plane of a slice (PS3.3 C.7.6.2.1.1): nothing missing, all finite, directions orthonormal, spacing positive."""
    x, y, z = _decimals(file, POSITION, "ImagePositionPatient", 3, _in_a_room)
    spacing = _decimals(file, SPACING, "PixelSpacing", 2, _is_spacing)
    cosines = _decimals(file, ORIENTATION, "ImageOrientationPatient", 6, _are_orthonormal)
    rows, columns = file.header.unsigned(pixel_data.ROWS) or 0, file.header.unsigned(pixel_data.COLUMNS) or 0
    thickness = _numbers(file.header.text(THICKNESS))
    known = len(thickness) == 1 and thickness[0] > 0
    return Plane((x, y, z), cosines, (spacing[0], spacing[1]), rows, columns, thickness[0] if known else None)


def _decimals(file: _File, tag: int, keyword: str, count: int, valid: Callable[[Sequence[float]], bool]) -> tuple[float, ...]:
    values = _numbers(file.header.text(tag))
    if len(values) != count or not valid(values):
        raise GeometryMissing(position=file.position, keyword=keyword)
    return values


def _numbers(text: str) -> tuple[float, ...]:
    """The values of a DS element, or none at all if one of them is not a finite number (PS3.5 6.2)."""
    parts = [part.strip() for part in text.split("\\")]
    if not all(len(part) <= 32 and _DS.fullmatch(part) for part in parts):
        return ()
    values = tuple(float(part) for part in parts)
    return values if all(map(math.isfinite, values)) else ()


def _in_a_room(values: Sequence[float]) -> bool:
    return all(abs(value) <= 100_000 for value in values)


def _is_spacing(values: Sequence[float]) -> bool:
    return all(0.01 <= value <= 20 for value in values)


def _are_orthonormal(values: Sequence[float]) -> bool:
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    return bool(abs(lengths[0] - 1) < 1e-3 and abs(lengths[1] - 1) < 1e-3 and abs(row @ column) < 1e-3)


# ── warnings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pixel_warnings(slices: Sequence[_File], stored: Sequence[StoredPixels]) -> list[JobWarning]:
    counts = Counter(
        code for file, pixels in zip(slices, stored, strict=True) for code in pixel_data.warnings_for(file.header, pixels)
    )
    return [JobWarning(code, pixel_data.WARNINGS[code].format(count)) for code, count in sorted(counts.items())]


def _body_part(slices: Sequence[_File]) -> list[JobWarning]:
    """Body Part Examined is free of use in practice, so it warns and never refuses."""
    parts = {file.header.text(BODY_PART).upper().replace(" ", "") for file in slices} - {""}
    if not parts or any(_NEAR_HEAD_AND_NECK.search(part) for part in parts):
        return []
    detail = "The series names another body part than the head and neck, which is all this server contours. Check the scan."
    return [JobWarning("series.other_body_part", detail)]
