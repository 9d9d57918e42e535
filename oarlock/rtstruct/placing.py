"""ROIs of a structure set to masks on the grid of a CT series.

Nothing is dropped in silence: what cannot be used is a warning that names the ROI by its number alone.

Sources: PS3.3 C.8.8.6 (ROI contour; C.8.8.6.3 keyholes).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray
from oarlock.ct.series import SeriesHeader
from oarlock.errors import FrameOfReferenceMismatch
from oarlock.facts import Notice
from oarlock.geometry.contours import box_of, count_crossings, slices_with_overlap, to_mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import OAR
from oarlock.rtstruct.reader import ROI, StructureSet

MAX_CROSSINGS: Final = 50_000_000
"""Most crossings of edges with rows of voxels that an ROI may have (about 5 s); a body outline has 200,000."""

ONE_PLANE_MM: Final = 0.05
"""Contours nearer to each other than this lie in one plane."""

EXACT_MM: Final = 0.01
"""Contours nearer to a slice's plane than this lie in it."""

MAX_CONTOURS: Final = 50_000
"""Most contours of an ROI that is laid on a grid (about 5 s); all bones of a body have a tenth."""

MAX_COMPARED: Final = 10_000
"""Contours of one ROI that share slices with others and are compared with them (about 2 s)."""


def rois_to_masks(
    structure_set: StructureSet, header: SeriesHeader, wanted: Mapping[OAR, int]
) -> tuple[OARMasks, tuple[Notice, ...]]:
    """Lay ROIs on the grid of a CT series; a voxel belongs to an ROI if its centre does (even-odd).

    Each plane of contours goes to the nearest slice, at most half the distance to the next one away. Where several planes are
    nearest to one slice, the nearest of them is used.

    :param wanted: OAR to ROI number; unknown numbers are a mistake of the caller.
    :returns: masks of all wanted OARs, and what could not be used.
    :raises FrameOfReferenceMismatch: the file names neither the frame of reference nor an image of the series.
    """
    notes = [Notice("structure_set.partly_used", f"In the RTSTRUCT, {finding}.") for finding in structure_set.findings]
    notes += [*_check_frame(structure_set, header), *_compare_patients(structure_set, header)]
    rois = {roi.number: roi for roi in reversed(structure_set.rois)}
    masks = OARMasks.empty(tuple(wanted), header.grid.shape)
    for oar, number in wanted.items():
        findings = list(rois[number].findings)
        if len(rois[number].contours) > MAX_CONTOURS:
            findings.append("its contours are too many or too long to be used")
        elif _belongs(rois[number], header):
            _draw(masks, oar, _Placing.of(rois[number], header, findings).polygons(), findings)
        else:
            findings.append("it lies in another frame of reference and is left out")
        notes += [Notice("structure_set.roi_partly_used", f"ROI number {number}: {finding}.") for finding in findings]
    return masks, tuple(notes)


def _check_frame(structure_set: StructureSet, header: SeriesHeader) -> list[Notice]:
    if header.frame_of_reference_uid in structure_set.frames_of_reference:
        return []
    if structure_set.referenced_instances.isdisjoint(instance.sop_instance_uid for instance in header.instances):
        raise FrameOfReferenceMismatch
    detail = "The RTSTRUCT names another frame of reference than the CT, but also images of the CT. It is used as it is."
    return [Notice("structure_set.frame_of_reference_differs", detail)]


def _compare_patients(structure_set: StructureSet, header: SeriesHeader) -> list[Notice]:
    """Geometry decides, not names: a CT is often sent under a pseudonym, and its structure set under another one."""
    of_ct = str(header.template.get("PatientID") or "").strip()
    if not (of_ct and structure_set.patient_id) or of_ct == structure_set.patient_id:
        return []
    detail = "The RTSTRUCT names another patient than the CT, but lies in its frame of reference. Check whose contours they are."
    return [Notice("structure_set.other_patient", detail)]


def _belongs(roi: ROI, header: SeriesHeader) -> bool:
    """Whether an ROI lies in the frame of reference of the series, as it says itself or by the images that it names."""
    if roi.frame_of_reference_uid in ("", header.frame_of_reference_uid):
        return True
    return not roi.referenced_instances.isdisjoint(instance.sop_instance_uid for instance in header.instances)


def _draw(masks: OARMasks, oar: OAR, polygons: list[tuple[int, FloatArray]], findings: list[str]) -> None:
    """Add an organ to masks in which it is still empty."""
    size = np.array(masks.shape[1:])
    outside = sum(bool(np.any(yx <= -1) or np.any(yx >= size)) for _, yx in polygons)
    if outside:
        findings.append(f"{outside} contour(s) reach over the edge of the images and are cut there")
    if count_crossings(polygons, masks.shape[1]) > MAX_CROSSINGS:
        findings.append("its contours are too many or too long to be used")
    elif polygons:
        box = box_of(polygons, masks.shape)
        corner = np.array([box[1].start, box[2].start])
        shape = tuple(along.stop - along.start for along in box)
        mask = to_mask([(z - box[0].start, yx - corner) for z, yx in polygons], (shape[0], shape[1], shape[2]))
        masks.bits[box] |= np.where(mask, masks.bit(oar), np.uint32(0))
        _tell_overlaps(polygons, masks.shape, findings)


def _tell_overlaps(polygons: list[tuple[int, FloatArray]], shape: tuple[int, int, int], findings: list[str]) -> None:
    """XOR is what the standard says of holes; of contours that overlap in part it says nothing, and others take their union."""
    drawn = Counter(z for z, _ in polygons)
    shared = [(z, yx) for z, yx in polygons if drawn[z] > 1]
    if len(shared) > MAX_COMPARED:
        findings.append("its contours are too many to tell whether any of them overlap in part")
    elif overlapping := slices_with_overlap(shared, shape):
        what = "its contours overlap in part; what two of them share counts as outside (XOR)"
        findings.append(f"on {len(overlapping)} slice(s) {what}")


@dataclass
class _Placing:
    """Finds the slice of each contour of one ROI; what cannot be placed is added to ``findings``.

    :param named: for each contour the slice of the image that it names, or None.
    """

    grid: Grid
    contours: Sequence[FloatArray]
    named: Sequence[int | None]
    findings: list[str]
    _problems: Counter[str] = field(default_factory=Counter)
    _moved: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, roi: ROI, header: SeriesHeader, findings: list[str]) -> "_Placing":
        slices = {instance.sop_instance_uid: z for z, instance in enumerate(header.instances)}
        return cls(header.grid, roi.contours, [slices.get(uid) for uid in roi.images], findings)

    def polygons(self) -> list[tuple[int, FloatArray]]:
        """Pairs of slice index and (n, 2) fractional row and column indices."""
        heights = [self._height(points) for points in self.contours]
        positions = np.array([(low + high) / 2 for low, high in heights])
        slices = self.grid.slice_positions_mm
        # A plane half way between two slices goes to the lower one, whatever the rounding: all planes of such a file move alike.
        nearest = np.searchsorted((slices[:-1] + slices[1:]) / 2 + EXACT_MM, np.nan_to_num(positions))
        reach = self.grid.slice_thicknesses_mm / 2 + EXACT_MM
        planes: dict[int, list[tuple[float, int]]] = {}
        for i, z in enumerate(nearest):
            offset = float(positions[i] - slices[z])
            if math.isnan(offset):
                self._problems["left out: not in a plane parallel to the slices"] += 1
            elif abs(offset) > reach[z]:
                self._problems["left out: above or below all slices"] += 1
            else:
                planes.setdefault(int(z), []).append((offset, i))
        chosen = [(z, i) for z, offsets in sorted(planes.items()) for i in self._nearest_plane(offsets)]
        off_mm = {i: max(abs(height - slices[z]) for height in heights[i]) for z, i in chosen}
        self._moved += [off for off in off_mm.values() if off > EXACT_MM]
        self._compare_images([i for _, i in chosen], positions, reach)
        self._report(sorted(planes))
        return [(z, self.grid.to_plane(z, self.contours[i])[0]) for z, i in self._distinct(chosen)]

    def _height(self, points: FloatArray) -> tuple[float, float]:
        """The lowest and the highest point of a contour along the normal; NaN if it is not parallel to the slices."""
        along = points @ self.grid.normal
        low, high = float(along.min()), float(along.max())
        return (low, high) if high - low <= self.grid.spacing_mm[0] / 2 else (math.nan, math.nan)

    def _nearest_plane(self, offsets: list[tuple[float, int]]) -> list[int]:
        """The contours of the plane nearest to a slice, of those that have no nearer slice."""
        best = min(offsets, key=lambda offset: abs(offset[0]))[0]
        used = [i for offset, i in offsets if abs(offset - best) <= ONE_PLANE_MM]
        if len(used) < len(offsets):
            self._problems["left out: between the slices, another plane is nearer"] += len(offsets) - len(used)
        return used

    def _compare_images(self, used: Sequence[int], positions: FloatArray, reach: FloatArray) -> None:
        """The points count; an image of the series that lies elsewhere is a sign that one of the two is wrong."""
        slices = self.grid.slice_positions_mm
        named = [(i, z) for i in used if (z := self.named[i]) is not None]
        off_mm = [off for i, z in named if (off := abs(float(positions[i] - slices[z]))) > reach[z]]
        if off_mm:
            problem = f"they lie up to {max(off_mm):.2f} mm off the image that they name; their points count"
            self._problems[problem] = len(off_mm)

    def _distinct(self, chosen: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Without contours that are drawn twice: even-odd would make them cancel one another."""
        seen: dict[tuple[int, bytes], tuple[int, int]] = {}
        for z, i in chosen:
            points = np.round(self.contours[i], 2)
            seen.setdefault((z, points[np.lexsort(points.T)].tobytes()), (z, i))
        if len(seen) < len(chosen):
            self.findings.append(f"{len(chosen) - len(seen)} of {len(self.contours)} contour(s): left out: drawn twice")
        return list(seen.values())

    def _report(self, used: list[int]) -> None:
        if self._moved:
            self._problems[f"moved onto the nearest slice, by up to {max(self._moved):.2f} mm"] = len(self._moved)
        self.findings += [f"{n} of {len(self.contours)} contour(s): {problem}" for problem, n in self._problems.items()]
        empty = sum(b - a - 1 for a, b in pairwise(used))
        if empty:
            self.findings.append(f"{empty} slice(s) between its contours have none and are left empty")
