"""What no validator checks: whether an RTSTRUCT is fit to be delivered.

``dciodvfy`` and its kind know attributes; none looks at where the contours lie. This check reads the bytes of the finished file,
with nothing of what was meant by its writer, and compares them with the CT series and, where given, with the masks. The worker
runs it on every file: one that has findings is not delivered. ``docs/dicom.md`` lists the rules.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.uid import RTStructureSetStorage

from oarlock.arrays import FloatArray, Mask
from oarlock.ct.series import SeriesHeader
from oarlock.dicom import patient_attributes as identity
from oarlock.dicom.elements import read_elements
from oarlock.dicom.sequences import Item, read_sequences
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.geometry.contours import to_mask
from oarlock.geometry.masks import Box, OARMasks
from oarlock.geometry.polygons import area, crossings
from oarlock.rtstruct.profiles import GENERIC, Profile

PLANE_MM: Final = 0.01
"""How far a point may lie off the plane of the slice that its contour names."""

SMALLEST_AREA_MM2: Final = 1e-3
LARGEST_VOLUME_ERROR: Final = 0.05
MOST_REPORTED: Final = 5
"""Contours of one ROI that are named for one rule; the rest is counted."""

_DECIMAL: Final = rb" *+[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)? *+"
_DECIMALS: Final = re.compile(_DECIMAL + rb"(?:\\" + _DECIMAL + rb")*+")
"""Numbers and what stands between them. Repeats are possessive: with a way back, a million numbers would take 450 MiB."""

_FRAME: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, eq=False)
class _Contour:
    """A contour whose slice and points could be read: (n, 2) fractional row and column indices on that slice."""

    number: int
    z: int
    yx: FloatArray


def check_rtstruct(path: Path, header: SeriesHeader, masks: OARMasks | None = None, profile: Profile = GENERIC) -> list[str]:
    """Findings that make an RTSTRUCT unfit to be delivered.

    The list is empty for a good one. Findings hold no text of the file.

    :param header: the CT series that the file claims to belong to.
    :param masks: what the file should hold.
    :param profile: how the file was written: it gives the names by which ROIs are compared with masks.
    """
    try:
        root = read_sequences(path, sop_class=RTStructureSetStorage)
    except Unusable as error:
        return [f"the file cannot be read: {error}"]
    if root is None:
        return ["the file is not an RT Structure Set"]
    rules = (_check_header, _check_patient, _check_images, _check_rois)
    findings = [finding for rule in rules for finding in rule(root, header)]
    numbers = {item.text(Tag.ROI_NUMBER): item for item in root.items(Tag.STRUCTURE_SET_ROI_SEQUENCE)}
    drawn: dict[str, list[_Contour]] = {}
    for item in root.items(Tag.ROI_CONTOUR_SEQUENCE):
        number = item.text(Tag.REFERENCED_ROI_NUMBER)
        roi = _RoiCheck(_shown(number), header)
        drawn[number] = roi.read(item.items(Tag.CONTOUR_SEQUENCE))
        roi.check_shapes(drawn[number])
        findings += roi.findings()
    if masks is not None:
        named = {item.values.get(Tag.ROI_NAME, b"").strip(b" "): drawn.get(number, []) for number, item in numbers.items()}
        findings += _compare(named, masks, header, profile)
    return findings


# ── attributes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_header(root: Item, header: SeriesHeader) -> Iterator[str]:
    if root.text(Tag.SOP_CLASS_UID) != RTStructureSetStorage or root.text(Tag.MODALITY) != "RTSTRUCT":
        yield "the SOP class or the modality is not that of an RT Structure Set"
    if not root.text(Tag.SOP_INSTANCE_UID) or not root.text(Tag.SERIES_INSTANCE_UID):
        yield "the SOP Instance UID or the Series Instance UID is missing"
    if root.text(Tag.SERIES_INSTANCE_UID) == header.series_instance_uid:
        yield "the Series Instance UID is that of the CT series"
    if root.text(Tag.STUDY_INSTANCE_UID) != header.study_instance_uid:
        yield "the Study Instance UID is not that of the CT series"
    if not 1 <= len(root.text(Tag.STRUCTURE_SET_LABEL)) <= 16:
        yield "the Structure Set Label is empty or longer than 16 characters"
    frames = [item.text(Tag.FRAME_OF_REFERENCE_UID) for item in root.items(Tag.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE)]
    if {*frames, root.text(Tag.FRAME_OF_REFERENCE_UID) or header.frame_of_reference_uid} != {header.frame_of_reference_uid}:
        yield "the frame of reference is not that of the CT series"


def _check_patient(root: Item, header: SeriesHeader) -> Iterator[str]:
    """The patient's name and id have the very bytes of the CT's, or are empty (where the CT's are not valid)."""
    wanted = {
        Tag.SPECIFIC_CHARACTER_SET: "Specific Character Set",
        Tag.PATIENT_NAME: "patient's name",
        Tag.PATIENT_ID: "patient's id",
    }
    ct = read_elements(header.instances[0].path, wanted, keep=lambda _: True)
    for tag, what in wanted.items():
        found = root.values.get(tag, b"").strip(b" \0")
        if found and (ct is None or found != ct.values.get(tag, b"").strip(b" \0")):
            yield f"the {what} is not that of the CT series, byte for byte"


def _check_images(root: Item, header: SeriesHeader) -> Iterator[str]:
    """The file lists exactly the images of the series, under the series."""
    studies = _below([root], Tag.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, Tag.RT_REFERENCED_STUDY_SEQUENCE)
    series = list(_below(studies, Tag.RT_REFERENCED_SERIES_SEQUENCE))
    if {item.text(Tag.SERIES_INSTANCE_UID) for item in series} != {header.series_instance_uid}:
        yield "it does not reference the CT series, or not that alone"
    images = list(_below(series, Tag.CONTOUR_IMAGE_SEQUENCE))
    listed = Counter(item.text(Tag.REFERENCED_SOP_INSTANCE_UID) for item in images)
    received = {instance.sop_instance_uid for instance in header.instances}
    if missing := len(received - listed.keys()):
        yield f"{missing} of {len(received)} images of the series are not referenced"
    if foreign := len(listed.keys() - received):
        yield f"{foreign} referenced image(s) do not belong to the series"
    if twice := sum(count > 1 for count in listed.values()):
        yield f"{twice} image(s) are referenced more than once"
    frames, slices = _frames_of(header), set(_slices_of(header))
    if {pair for item in images for pair in _referenced(item, frames) if pair[0] in received} != slices and not missing:
        yield "the frames that are referenced are not those of the series"


def _slices_of(header: SeriesHeader) -> dict[tuple[str, int], int]:
    """Index of each slice by the UID of its image and the number of its frame, which is 1 in a single-frame image."""
    return {(instance.sop_instance_uid, instance.frame or 1): z for z, instance in enumerate(header.instances)}


def _frames_of(header: SeriesHeader) -> dict[str, int]:
    return {instance.sop_instance_uid: instance.frames for instance in header.instances}


def _referenced(item: Item, frames: Mapping[str, int]) -> list[tuple[str, int]]:
    """What a reference to an image means: the frames it numbers, or all of them (PS3.3 Table 10-3)."""
    uid, named = item.text(Tag.REFERENCED_SOP_INSTANCE_UID), item.text(Tag.REFERENCED_FRAME_NUMBER)
    if not named:
        return [(uid, frame) for frame in range(1, frames.get(uid, 1) + 1)]
    return [(uid, int(text)) if _FRAME.fullmatch(text.strip()) else (uid, 0) for text in named.split("\\")]


def _below(items: Iterable[Item], *path: Tag) -> Iterator[Item]:
    """All items of a sequence that lies so many levels below the given ones."""
    for item in items:
        if not path:
            yield item
        else:
            yield from _below(item.items(path[0]), *path[1:])


def _check_rois(root: Item, header: SeriesHeader) -> Iterator[str]:
    """Each ROI once, with one number, one name, one entry for its contours and one observation."""
    rois = root.items(Tag.STRUCTURE_SET_ROI_SEQUENCE)
    numbers = [item.text(Tag.ROI_NUMBER) for item in rois]
    names = [item.values.get(Tag.ROI_NAME, b"").strip(b" ") for item in rois]
    if len(set(numbers)) < len(numbers):
        yield "two ROIs have the same number"
    if len(set(names)) < len(names) or b"" in names:
        yield "two ROIs have the same name, or one has none"
    for item in rois:
        if item.text(Tag.REFERENCED_FRAME_OF_REFERENCE_UID) != header.frame_of_reference_uid:
            yield f"ROI number {_shown(item.text(Tag.ROI_NUMBER))} is not in the frame of reference of the CT series"
    for sequence, what in ((Tag.ROI_CONTOUR_SEQUENCE, "contours"), (Tag.RT_ROI_OBSERVATIONS_SEQUENCE, "an observation")):
        referenced = [item.text(Tag.REFERENCED_ROI_NUMBER) for item in root.items(sequence)]
        if sorted(referenced) != sorted(set(numbers)):
            yield f"not every ROI has exactly one entry for {what}, or an entry belongs to no ROI"


def _shown(number: str) -> str:
    """An ROI number as it may stand in a finding: digits only."""
    return number if number.isdecimal() and number.isascii() and len(number) <= 12 else "?"


# ── contours ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _RoiCheck:
    """Collects what is wrong with the contours of one ROI, by rule."""

    def __init__(self, number: str, header: SeriesHeader) -> None:
        self._number, self._grid = number, header.grid
        self._slices, self._frames = _slices_of(header), _frames_of(header)
        self._broken: dict[str, list[int]] = {}

    def findings(self) -> Iterator[str]:
        for rule, contours in self._broken.items():
            shown = ", ".join(str(number) for number in contours[:MOST_REPORTED])
            more = f" and {len(contours) - MOST_REPORTED} more" if len(contours) > MOST_REPORTED else ""
            yield f"ROI number {self._number}, contour {shown}{more}: {rule}"

    def _breaks(self, number: int, rule: str) -> None:
        self._broken.setdefault(rule, []).append(number)

    def read(self, items: Sequence[Item]) -> list[_Contour]:
        """The contours that name a slice of the series and have points; they are counted from 1."""
        found = []
        for number, item in enumerate(items, start=1):
            points_mm = self._points(number, item)
            images = [pair for image in item.items(Tag.CONTOUR_IMAGE_SEQUENCE) for pair in _referenced(image, self._frames)]
            if len(images) != 1 or images[0] not in self._slices:
                self._breaks(number, "it does not name exactly one image of the series")
            elif points_mm is not None:
                z = self._slices[images[0]]
                yx, off_plane_mm = self._grid.to_plane(z, points_mm)
                if np.abs(off_plane_mm).max() > PLANE_MM:
                    self._breaks(number, f"it lies more than {PLANE_MM} mm off the plane of its slice")
                found.append(_Contour(number, z, yx))
        return found

    def _points(self, number: int, item: Item) -> FloatArray | None:
        if item.text(Tag.CONTOUR_GEOMETRIC_TYPE) != "CLOSED_PLANAR":
            self._breaks(number, "its geometric type is not CLOSED_PLANAR")
        data = item.values.get(Tag.CONTOUR_DATA, b"").removesuffix(b" ")  # padded to an even length
        if not _DECIMALS.fullmatch(data):
            self._breaks(number, "its points are not decimal numbers")
            return None
        strings = data.split(b"\\")
        if max(map(len, strings)) > 16:
            self._breaks(number, "it has a number of more than 16 characters")
        stated = item.text(Tag.NUMBER_OF_CONTOUR_POINTS)
        if len(strings) % 3 or stated != str(len(strings) // 3):
            self._breaks(number, "its number of points is misstated")
        if len(strings) < 9 or len(strings) % 3:
            self._breaks(number, "it has fewer than three points")
            return None
        return np.array([float(string) for string in strings]).reshape(-1, 3)

    def check_shapes(self, contours: Sequence[_Contour]) -> None:
        """Area, extent, repeated points, and crossings, also between the contours of one slice."""
        size = np.array(self._grid.shape[1:])
        pixel_mm2 = self._grid.row_spacing_mm * self._grid.column_spacing_mm
        for contour in contours:
            if abs(area(contour.yx)) * pixel_mm2 < SMALLEST_AREA_MM2:
                self._breaks(contour.number, "it has no area")
            if np.any(contour.yx <= -1) or np.any(contour.yx >= size):
                self._breaks(contour.number, "it reaches more than half a voxel out of the image")
            closed = np.concatenate([contour.yx[-1:], contour.yx])
            if np.any(np.all(closed[1:] == closed[:-1], axis=1)):
                self._breaks(contour.number, "it repeats a point")
        crossing = crossings([contour.yx for contour in contours], [contour.z for contour in contours], pixel_mm2)
        if crossing is None:
            self._broken["too complex to be checked"] = [contour.number for contour in contours]
        for i in crossing or ():
            self._breaks(contours[i].number, "it crosses or touches itself or another contour of its slice")


# ── against the masks ─────────────────────────────────────────────────────────────────────────────────────────────────


def _compare(named: dict[bytes, list[_Contour]], masks: OARMasks, header: SeriesHeader, profile: Profile) -> Iterator[str]:
    """Each OAR is there, a reader that tests voxel centres gets its mask back, and the polygons have its volume."""
    for style in profile.styles_of(masks.oars):
        oar, name = style.oar, identity.encoded(style.name, header.template)
        contours, cropped = None if name is None else named.get(name), masks.crop(oar, margin=1)
        if contours is None:
            if cropped is not None or profile.keep_empty:
                yield f"{oar.name} is not among the ROIs"
        elif cropped is None:
            if contours:
                yield f"{oar.name} is empty and has contours"
        else:
            yield from (f"{oar.name}: {problem}" for problem in _compare_roi(contours, *cropped, header))


def _compare_roi(contours: Sequence[_Contour], box: Box, wanted: Mask, header: SeriesHeader) -> Iterator[str]:
    """Compare one ROI with its mask in its bounding box, grown by a voxel."""
    corner = np.array([box[1].start, box[2].start])
    inside = [(c.z - box[0].start, c.yx - corner) for c in contours if box[0].start <= c.z < box[0].stop]
    limit = np.array(wanted.shape[1:])
    if len(inside) < len(contours) or any(np.any(yx <= -1) or np.any(yx >= limit) for _, yx in inside):
        yield "it has contours where the model drew nothing"
    if different := int(np.count_nonzero(wanted != to_mask(inside, (len(wanted), wanted.shape[1], wanted.shape[2])))):
        yield f"{different} voxel(s) are not what the model drew"
    thickness = header.grid.slice_thicknesses_mm
    expected = float(thickness[box[0]] @ np.count_nonzero(wanted, axis=(1, 2)))
    ratio = abs(sum(float(thickness[contour.z]) * area(contour.yx) for contour in contours)) / expected
    if abs(ratio - 1) > LARGEST_VOLUME_ERROR:
        yield f"the volume between its contours is {ratio:.2f} times that of its voxels"
