"""DICOM files to one CT series.

The gatekeeper of the request, and the reader of the worker.

``check_headers`` answers while the sender is still listening. It reads a few kilobytes of each file, ignores what is not a CT
image, and lets through exactly one complete stack of parallel slices in one frame of reference. ``docs/dicom.md`` tabulates
what is accepted, corrected with a warning, or refused, each with its clause of the standard.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom

from oarlock.ct import pixel_header, sorting, statements
from oarlock.ct.completeness import check_complete
from oarlock.ct.derived import derived_kinds, derived_notice
from oarlock.ct.listed_images import UNREAD, read_listing
from oarlock.ct.pixel_header import StoredPixels, check_pixels
from oarlock.ct.pixel_reader import read_volume
from oarlock.ct.slice_spacing import Plane, to_grid
from oarlock.ct.sorting import DicomFile, sort_out
from oarlock.ct.statements import stated
from oarlock.dicom import patient_attributes
from oarlock.dicom.tags import Tag
from oarlock.errors import (
    GeometryMissing,
    InstanceUnreadable,
    MixedFrameOfReference,
    MixedPatients,
    MixedSeries,
    SeriesTooLarge,
    TooManySlices,
)
from oarlock.facts import Notice, SeriesFacts
from oarlock.geometry.grid import Grid

MAX_VOXELS: Final = 2**30
"""Most voxels of a series: 2 GiB of Hounsfield units, 1,024 slices of 1,024 × 1,024."""

MAX_LISTING_ELEMENTS: Final = 300_000
"""Most elements of supplied RTSTRUCTs that are looked at for the images that they list (1 s); 20 observers have 80,000."""

WANTED: Final = (
    frozenset(
        {
            Tag.BODY_PART_EXAMINED,
            Tag.SLICE_THICKNESS,
            Tag.GANTRY_DETECTOR_TILT,
            Tag.STUDY_INSTANCE_UID,
            Tag.SERIES_INSTANCE_UID,
            Tag.MANUFACTURER,
            Tag.MANUFACTURER_MODEL_NAME,
            Tag.STATION_NAME,
            Tag.SERIES_DESCRIPTION,
            Tag.DERIVATION_DESCRIPTION,
            Tag.KVP,
            Tag.MULTIENERGY_CT_ACQUISITION,
        }
    )
    | {Tag.FRAME_OF_REFERENCE_UID, Tag.IMAGE_POSITION_PATIENT, Tag.IMAGE_ORIENTATION_PATIENT, Tag.PIXEL_SPACING}
    | pixel_header.WANTED
    | sorting.WANTED
    | statements.WANTED
    | patient_attributes.WANTED
)

_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9._+/()-]+")
_LONGEST_SCANNER: Final = 100

_HEAD_AND_NECK: Final = re.compile(
    r".*(HEAD|NECK|BRAIN|SKULL|SINUS|PHARYN|LARYN|MAXIL|MANDIB).*|FACE|JAW|ORBIT|EYE|EAR|IAC|NOSE|TONGUE|THYROID|CSPINE|TMJ|HN|H&N"
)
"""Terms of PS3.16 Annex L and what is seen in practice. Short ones count alone only: HEART holds EAR, and CARDIAC holds IAC."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One slice: a CT image, or one frame of a multi-frame image.

    ``position`` is that of the file in the upload, from 1; ``pixels`` how its pixel data are stored; ``plane`` where it says to
    lie. ``frame`` counts the frames of the file from 1, and ``frames`` says how many it has; None and 1 for a single-frame image.
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    position: int
    pixels: StoredPixels | None = field(default=None, repr=False, compare=False)
    plane: Plane | None = field(default=None, repr=False, compare=False)
    frame: int | None = None
    frames: int = 1


@dataclass(frozen=True)
class SeriesHeader:
    """One CT series that can be contoured, before its pixels are read.

    ``instances[z]`` is the file, or the frame, of slice z of the grid; ``structure_sets`` the RTSTRUCT files of the upload in its
    order; ``template`` the patient and study attributes in the CT's character set (see
    :mod:`oarlock.dicom.patient_attributes`). ``scanner`` is what
    the slices came from, in plain letters: Manufacturer, Manufacturer's Model Name, Station Name; empty where none is named.
    ``device`` is the first two of them, which say of which make a scanner is and not whose.
    """

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    grid: Grid
    instances: tuple[Instance, ...]
    structure_sets: tuple[Path, ...]
    template: pydicom.Dataset
    warnings: tuple[Notice, ...]
    scanner: str = ""
    device: tuple[str, str] = ("", "")

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
    """A CT series with its Hounsfield units.

    ``hu`` is (z, y, x) int16 on ``header.grid``, read-only.
    """

    header: SeriesHeader
    hu: npt.NDArray[np.int16]


def check_headers(files: Sequence[Path], *, max_slices: int = 1024, refuse_gaps: bool = True) -> SeriesHeader:
    """The one complete CT series among the files.

    Or the reason why there is not one.

    Reads no pixel data. The result is the same for every order of the files, but for the positions and the order of
    ``structure_sets``.

    :param files: the files of the upload, in its order; messages count them from 1.
    :param refuse_gaps: whether slices that must be missing by what the others say are refused; else they become a warning.
    :raises SeriesError: a leaf of it, with the files and millimetres it is about.
    """
    upload = sort_out(files, WANTED)
    slices = upload.slices()
    study, series = _one_series(slices)
    if len(slices) > max_slices:
        raise TooManySlices(found=len(slices), limit=max_slices)
    stored = [check_pixels(file.header, file.position) for file in slices]
    _check_volume(stored)
    planes = [_plane(file) for file in slices]
    grid, order, geometry_warnings = to_grid(planes)
    completeness_warnings = check_complete(grid.slice_spacings_mm, stated([slices[i] for i in order]), refuse_gaps=refuse_gaps)
    frame_of_reference = _frame_of_reference(slices)
    instances = tuple(_instance(slices[i], stored[i], planes[i]) for i in order)
    lowest = slices[order[0]].header
    template, identity_warnings = patient_attributes.to_template(lowest.values, big_endian=lowest.big_endian)
    warnings = [
        *upload.warnings,
        *geometry_warnings,
        *completeness_warnings,
        *_not_sent(list(upload.structure_sets.values()), series, instances),
        *_skipped_elements(slices),
        *_derived(slices),
        *_pixel_warnings(slices, stored),
        *_tilt(slices, grid),
        *_body_part(slices),
        *identity_warnings,
    ]
    device = (_plain(slices[order[0]], Tag.MANUFACTURER), _plain(slices[order[0]], Tag.MANUFACTURER_MODEL_NAME))
    return SeriesHeader(
        study,
        series,
        frame_of_reference,
        grid,
        instances,
        tuple(upload.structure_sets.values()),
        template,
        tuple(warnings),
        _scanner(*device, _plain(slices[order[0]], Tag.STATION_NAME)),
        device,
    )


def read_ct_series(header: SeriesHeader) -> CTSeries:
    """Read the Hounsfield units of a checked series.

    Memory is one int16 volume and one slice.

    :raises UnsupportedPixelData: a slice cannot be decoded.
    """
    slices = [(instance.path, instance.position, instance.pixels) for instance in header.instances if instance.pixels]
    if len(slices) != len(header.instances):
        raise ValueError("the header was not made by check_headers")
    hu = read_volume(slices)
    hu.setflags(write=False)
    return CTSeries(header, hu)


# ── one series ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _one_series(slices: Sequence[DicomFile]) -> tuple[str, str]:
    """Study and series UID that all slices share, with one patient and at most one frame of reference."""
    series = Counter(
        (_required_uid(file, Tag.STUDY_INSTANCE_UID), _required_uid(file, Tag.SERIES_INSTANCE_UID)) for file in slices
    )
    if len(series) > 1:
        raise MixedSeries(images=list(series.values()))
    for tag in (Tag.PATIENT_ID, Tag.PATIENT_NAME):
        _check_patient(slices, tag)
    frames = {file.header.text(Tag.FRAME_OF_REFERENCE_UID) for file in slices} - {""}
    if len(frames) > 1:
        raise MixedFrameOfReference(found=len(frames))
    return next(iter(series))


def _required_uid(file: DicomFile, tag: int) -> str:
    uid = file.uid(tag)
    if not uid:
        name = "Study Instance UID" if tag == Tag.STUDY_INSTANCE_UID else "Series Instance UID"
        raise InstanceUnreadable(position=file.position, reason=f"it has no valid {name}")
    return uid


def _frame_of_reference(slices: Sequence[DicomFile]) -> str:
    """Never invented: contours without it could be laid over any scan. Asked last, as a gap in the series is the better news."""
    for file in slices:
        if not file.uid(Tag.FRAME_OF_REFERENCE_UID):
            raise GeometryMissing(position=file.position, keyword="FrameOfReferenceUID")
    return slices[0].uid(Tag.FRAME_OF_REFERENCE_UID)


def _scanner(*parts: str) -> str:
    """The name that becomes a label of charts."""
    return " ".join(part for part in parts if part)[:_LONGEST_SCANNER].strip()


def _plain(file: DicomFile, tag: int) -> str:
    """The text with everything but ``A-Za-z0-9._+/()-`` replaced by a blank, at most 64 characters (LO, PS3.5 6.2)."""
    return " ".join(_UNPLAIN.sub(" ", file.header.text(tag)).split())[:64].strip()


def _check_patient(slices: Sequence[DicomFile], tag: int) -> None:
    first = slices[0]
    for file in slices:
        if not patient_attributes.same_text(file.header.values, first.header.values, tag):
            raise MixedPatients(first=first.position, second=file.position)


def _check_volume(stored: Sequence[StoredPixels]) -> None:
    rows, columns = max(pixels.rows for pixels in stored), max(pixels.columns for pixels in stored)
    if len(stored) * rows * columns > MAX_VOXELS:
        raise SeriesTooLarge(slices=len(stored), rows=rows, columns=columns, limit=MAX_VOXELS)


def _instance(file: DicomFile, stored: StoredPixels, plane: Plane) -> Instance:
    header = file.header
    uids = header.text(Tag.SOP_INSTANCE_UID), file.sop_class
    return Instance(header.path, *uids, file.position, stored, plane, file.frame, file.frames)


# ── geometry of one slice ─────────────────────────────────────────────────────────────────────────────────────────────


def _plane(file: DicomFile) -> Plane:
    """The image plane of a slice (PS3.3 C.7.6.2.1.1): nothing missing, all finite, directions orthonormal, spacing positive."""
    x, y, z = _decimals(file, Tag.IMAGE_POSITION_PATIENT, "ImagePositionPatient", 3, _in_a_room)
    spacing = _decimals(file, Tag.PIXEL_SPACING, "PixelSpacing", 2, _is_spacing)
    cosines = _decimals(file, Tag.IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient", 6, _are_orthonormal)
    rows, columns = file.header.unsigned(Tag.ROWS) or 0, file.header.unsigned(Tag.COLUMNS) or 0
    thickness = file.header.numbers(Tag.SLICE_THICKNESS)
    known = len(thickness) == 1 and thickness[0] > 0
    return Plane((x, y, z), cosines, (spacing[0], spacing[1]), rows, columns, thickness[0] if known else None)


def _decimals(file: DicomFile, tag: int, keyword: str, count: int, valid: Callable[[Sequence[float]], bool]) -> tuple[float, ...]:
    values = file.header.numbers(tag)
    if len(values) != count or not valid(values):
        raise GeometryMissing(position=file.position, keyword=keyword)
    return values


def _in_a_room(values: Sequence[float]) -> bool:
    return all(abs(value) <= 100_000 for value in values)


def _is_spacing(values: Sequence[float]) -> bool:
    return all(0.01 <= value <= 20 for value in values)


def _are_orthonormal(values: Sequence[float]) -> bool:
    """To what four decimals allow; they are made exactly so afterwards, within their plane."""
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    return bool(abs(lengths[0] - 1) < 2e-4 and abs(lengths[1] - 1) < 2e-4 and abs(row @ column) < 2e-4)


# ── warnings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pixel_warnings(slices: Sequence[DicomFile], stored: Sequence[StoredPixels]) -> list[Notice]:
    counts = Counter(
        code for file, pixels in zip(slices, stored, strict=True) for code in pixel_header.warnings_for(file.header, pixels)
    )
    return [Notice(code, pixel_header.WARNINGS[code].format(count)) for code, count in sorted(counts.items())]


def _tilt(slices: Sequence[DicomFile], grid: Grid) -> list[Notice]:
    """The orientation counts (PS3.3 C.7.6.2.1.1); a Gantry/Detector Tilt that it does not show is a conversion gone wrong, or an
    attribute left over from before a reformat.
    """
    stated = max((abs(value) for file in slices for value in file.header.numbers(Tag.GANTRY_DETECTOR_TILT)), default=0.0)
    if stated < 0.5 or abs(grid.normal[2]) < np.cos(np.radians(0.05)):
        return []
    detail = f"The files state a gantry tilt of {stated:.1f}° but their orientation is exactly axial, which is what counts here."
    return [Notice("series.tilt_contradicted", detail + " Check that contours follow the anatomy in sagittal view.")]


def _not_sent(structure_sets: Sequence[Path], series_uid: str, instances: Sequence[Instance]) -> list[Notice]:
    """Images of the series that a supplied RTSTRUCT lists and that were not sent: the planning system has them."""
    sent = {instance.sop_instance_uid for instance in instances}
    listed: set[str] = set()
    visited = unread = 0
    for path in structure_sets:
        listing = read_listing(path) if visited <= MAX_LISTING_ELEMENTS else UNREAD
        visited += listing.visited
        unread += not listing.complete
        listed |= listing.images.get(series_uid, frozenset())
    found = []
    if missing := listed - sent:
        detail = f"A supplied RTSTRUCT lists {len(missing)} image(s) of this series that were not sent."
        found.append(Notice("series.maybe_incomplete", detail + " Organs get no contours there."))
    if unread:
        detail = f"The lists of images of {unread} supplied RTSTRUCT(s) are too long, or cannot be read, so they were not held "
        found.append(Notice("series.lists_not_read", detail + "against the images that were sent."))
    return found


def _skipped_elements(slices: Sequence[DicomFile]) -> list[Notice]:
    files = {file.position: file.header.skipped for file in slices if file.header.skipped}
    if not files:
        return []
    tag = next(iter(files.values()))[0]
    detail = (
        f"{len(files)} file(s) hold elements without a valid value representation, the first ({tag >> 16:04X},{tag & 0xFFFF:04X})"
    )
    return [Notice("series.elements_skipped", detail + "; they are not needed here and were skipped.")]


def _derived(slices: Sequence[DicomFile]) -> list[Notice]:
    headers = [file.header for file in slices]
    said = {value for header in headers for value in header.text(Tag.IMAGE_TYPE).split("\\")}
    said |= {header.text(Tag.SERIES_DESCRIPTION) for header in headers}
    first = headers[0]
    kinds = derived_kinds(
        sorted(said),
        derivations=sorted({header.text(Tag.DERIVATION_DESCRIPTION) for header in headers}),
        device=f"{first.text(Tag.MANUFACTURER)} {first.text(Tag.MANUFACTURER_MODEL_NAME)}",
        kv=max((value for header in headers for value in header.numbers(Tag.KVP)), default=None),
        multi_energy=any(header.text(Tag.MULTIENERGY_CT_ACQUISITION) == "YES" for header in headers),
    )
    return derived_notice(kinds)


def _body_part(slices: Sequence[DicomFile]) -> list[Notice]:
    """Body Part Examined is free of use in practice, so it warns and never refuses."""
    parts = {file.header.text(Tag.BODY_PART_EXAMINED).upper().replace(" ", "") for file in slices} - {""}
    if not parts or any(_HEAD_AND_NECK.fullmatch(part) for part in parts):
        return []
    detail = "The series names another body part than the head and neck, which is all this server contours. Check the scan."
    return [Notice("series.other_body_part", detail)]
