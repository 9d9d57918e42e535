"""ROIs of a structure set to masks on a CT's grid.

Nothing is dropped in silence: what cannot be used is a warning that names the ROI by its number alone. An ROI of which contours
are left out, or whose contours contradict each other, is laid on the grid as far as it can be, and named as not to be scored.

Sources: PS3.3 C.8.8.6 (ROI contour; C.8.8.6.3 keyholes).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from oarlock.arrays import FloatArray, Mask
from oarlock.ct.series import SeriesHeader
from oarlock.errors import FrameOfReferenceMismatch
from oarlock.facts import Notice
from oarlock.geometry.contours import box_of, count_crossings, to_mask
from oarlock.geometry.interpolation import between
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.overlaps import nearly_the_same, shared_voxels, steps_of, voxels_of, with_company
from oarlock.organs.catalogue import OAR
from oarlock.rtstruct.planes import EXACT_MM, Heights, Layout, Plane, lay_out, usual_gap_mm
from oarlock.rtstruct.reader import ROI, StructureSet

TWICE_MM: Final = 0.5
"""Two contours of a plane nowhere further apart than this are the same one, drawn twice; a wall so thin is not drawn."""

LARGEST_DISPUTED_SHARE: Final = 0.02
"""Of an ROI's voxels, the share that contours which overlap may have in common; beyond, even-odd decides too much."""


_MOST_NEAR: Final = 100_000
"""Pairs of contours in one plane that are nearly of the same place and size, each counted from both sides."""

_TO_INTERPOLATE: Final = 20
"""What a voxel of an interpolated slice costs, counted in voxels that are compared."""


@dataclass(slots=True)
class Budget:
    """What all ROIs of one file may cost together.

    Each kind alone takes about 2 s of CPU time at its limit.

    :param crossings: of edges with rows of voxels; 21 organs of a clinic have 2,000,000.
    :param contours: that are laid on a grid; 21 organs on slices of 1 mm have 8,000.
    :param company: contours on slices that hold several, which are compared for overlaps.
    :param voxels: in the boxes of these, and of slices that are interpolated.
    :param steps: points by which contours are compared that may be drawn twice; 21 organs, all drawn twice, have 4,000,000.
    :param whole: the sum of the shares that are used of each of these.
    """

    crossings: int = 20_000_000
    contours: int = 20_000
    company: int = 5_000
    voxels: int = 200_000_000
    steps: int = 5_000_000
    whole: float = 1.5
    _used: dict[str, int] = field(default_factory=dict)

    def takes(self, kind: str, amount: int) -> bool:
        """Whether so much is left, which is then used."""
        most = int(getattr(self, kind))
        used = self._used.get(kind, 0) + amount
        share = amount / most if most else 0.0
        if used > most or share > self.whole:
            return False
        self._used[kind] = used
        self.whole -= share
        return True


class PlacedROIs(NamedTuple):
    """ROIs on the grid of a series.

    :param masks: of all wanted OARs.
    :param warnings: what could not be used as it stands.
    :param not_scored: why an organ's mask is not all that its ROI means, as the end of a sentence.
    :param hollow: organs that have contours and yet no voxel.
    """

    masks: OARMasks
    warnings: tuple[Notice, ...]
    not_scored: Mapping[OAR, str]
    hollow: frozenset[OAR]


def rois_to_masks(
    structure_set: StructureSet, header: SeriesHeader, wanted: Mapping[OAR, int], budget: Budget | None = None
) -> PlacedROIs:
    """Masks of ROIs on the grid of a CT series.

    A voxel belongs to an ROI if its centre does (even-odd).

    :param wanted: OAR to ROI number; unknown numbers are a mistake of the caller.
    :raises FrameOfReferenceMismatch: the file names neither the frame of reference nor an image of the series.
    """
    notes = [Notice("structure_set.partly_used", f"In the RTSTRUCT, {finding}.") for finding in structure_set.findings]
    for check in (_check_frame, _check_series, _check_sent, _compare_patients):
        notes += check(structure_set, header)
    budget = budget or Budget()
    rois = {roi.number: roi for roi in reversed(structure_set.rois)}
    unsent = _unsent(structure_set, header)
    placing = [_Placing(oar, rois[number], header, budget, unsent) for oar, number in wanted.items()]
    file_gap_mm = usual_gap_mm([one.heights for one in placing if one.heights is not None])
    masks = OARMasks.empty(tuple(wanted), header.grid.shape)
    for one in placing:
        one.draw(masks, file_gap_mm)
        notes += [Notice("structure_set.roi_partly_used", f"ROI number {one.roi.number}: {finding}.") for finding in one.findings]
    not_scored = {one.oar: one.why_not for one in placing if one.why_not}
    return PlacedROIs(masks, tuple(notes), not_scored, frozenset(one.oar for one in placing if one.hollow))


def _check_frame(structure_set: StructureSet, header: SeriesHeader) -> list[Notice]:
    if header.frame_of_reference_uid in structure_set.frames_of_reference:
        return []
    if structure_set.referenced_instances.isdisjoint(_uids(header)):
        raise FrameOfReferenceMismatch
    detail = "The RTSTRUCT names another frame of reference than the CT, but also images of the CT. It is used as it is."
    return [Notice("structure_set.frame_of_reference_differs", detail)]


def _check_series(structure_set: StructureSet, header: SeriesHeader) -> list[Notice]:
    """Whether the contours were drawn on other images than those of the CT."""
    named = structure_set.referenced_instances
    if named:
        other = named.isdisjoint(_uids(header))
    else:
        other = bool(structure_set.listed) and header.series_instance_uid not in structure_set.listed
    if not other:
        return []
    detail = "The RTSTRUCT was drawn on another series in the same frame of reference: it names none of the images of the CT. "
    return [Notice("structure_set.other_series", detail + "Its contours are used where they lie in the patient.")]


def _check_sent(structure_set: StructureSet, header: SeriesHeader) -> list[Notice]:
    unsent = _unsent(structure_set, header)
    if not unsent:
        return []
    detail = f"The RTSTRUCT lists {len(unsent)} image(s) of the CT series that were not sent."
    return [Notice("structure_set.images_not_sent", detail + " An ROI with contours on them is not scored.")]


def _unsent(structure_set: StructureSet, header: SeriesHeader) -> frozenset[str]:
    """Images of the CT series that the file lists and that are not there; none where it lists none of those that are."""
    listed, sent = structure_set.listed.get(header.series_instance_uid, frozenset()), _uids(header)
    return frozenset() if listed.isdisjoint(sent) else listed - sent


def _compare_patients(structure_set: StructureSet, header: SeriesHeader) -> list[Notice]:
    """Geometry decides, not names: a CT is often sent under a pseudonym, and its structure set under another one."""
    of_ct = str(header.template.get("PatientID") or "").strip()
    if not (of_ct and structure_set.patient_id) or of_ct == structure_set.patient_id:
        return []
    detail = "The RTSTRUCT names another patient than the CT, but lies in its frame of reference. Check whose contours they are."
    return [Notice("structure_set.other_patient", detail)]


def _uids(header: SeriesHeader) -> set[str]:
    return {instance.sop_instance_uid for instance in header.instances}


def _belongs(roi: ROI, header: SeriesHeader) -> bool:
    """Whether an ROI lies in the frame of reference of the series, as it says itself or by the images that it names."""
    if roi.frame_of_reference_uid in ("", header.frame_of_reference_uid):
        return True
    return not roi.referenced_instances.isdisjoint(_uids(header))


def _by_slice(polygons: Sequence[tuple[int, FloatArray]]) -> dict[int, list[FloatArray]]:
    found: dict[int, list[FloatArray]] = {}
    for z, yx in polygons:
        found.setdefault(z, []).append(yx)
    return found


class _Placing:
    """One ROI on its way to the grid.

    :ivar findings: what cannot be used as it stands, in sentences without a point.
    :ivar why_not: why the mask is not to be scored, empty if it is.
    :ivar heights: None where the contours are not used at all.
    """

    def __init__(self, oar: OAR, roi: ROI, header: SeriesHeader, budget: Budget, unsent: frozenset[str] = frozenset()) -> None:
        self.oar, self.roi, self._unsent = oar, roi, unsent
        self.findings = list(roi.findings)
        self.why_not = ""
        self.hollow = False
        self._voxels = 0
        self._twins_unknown = False
        self.heights: Heights | None = None
        self._header, self._grid, self._budget = header, header.grid, budget
        if not budget.takes("contours", len(roi.contours)):
            self._refuse("its contours are too many or too long to be used")
        elif not _belongs(roi, header):
            self._refuse("it lies in another frame of reference and is left out")
        else:
            self.heights = Heights.of(roi.contours, self._grid)

    def _refuse(self, why: str) -> None:
        self.findings.append(why)
        self.why_not = self.why_not or why

    def draw(self, masks: OARMasks, file_gap_mm: float) -> None:
        """Add the organ to masks in which it is still empty."""
        if self.heights is None:
            return
        layout = lay_out(self.heights, self._grid, file_gap_mm=file_gap_mm)
        self._report(layout)
        if lost := self.roi.lost + layout.lost:
            self.why_not = f"{lost} of its {self.roi.lost + len(self.roi.contours)} contours are left out"
        elif lost := sum(image in self._unsent for image in self.roi.images):
            self.why_not = f"{lost} of its {len(self.roi.contours)} contours lie on images of the series that were not sent"
        kept = self._without_twins([*layout.drawn.values(), *(plane for _, *pair, _ in layout.between for plane in pair)])
        polygons = [(z, self._on_slice(z, i)) for z, plane in layout.drawn.items() for i in kept[plane]]
        if not self._draw_polygons(masks, polygons) or not self._interpolate(masks, layout, kept):
            self._refuse("its contours are too many or too long to be used")
            return
        drawn = set(layout.drawn.values())
        between_slices = {plane: z for z, *pair, _ in layout.between for plane in pair if plane not in drawn}
        placed = [*layout.drawn.items(), *((z, plane) for plane, z in between_slices.items())]
        self._compare_overlaps([self._on_slice(z, i) for i in kept[plane]] for z, plane in placed)
        self.hollow = bool(self.roi.contours) and self._voxels == 0
        if self.hollow and kept and not self.why_not:
            self.findings.append(f"its {len(self.roi.contours)} contour(s) enclose no voxel of the CT")

    def _on_slice(self, z: int, i: int) -> FloatArray:
        return self._grid.to_plane(z, self.roi.contours[i])[0]

    # ── what is said ──

    def _report(self, layout: Layout) -> None:
        problems = Counter(layout.problems)
        if off_mm := self._off_their_images(layout):
            problems[f"they lie up to {max(off_mm):.2f} mm off the image that they name; their points count"] = len(off_mm)
        if layout.moved_mm:
            problems[f"moved onto the nearest slice, by up to {max(layout.moved_mm.values()):.2f} mm"] = len(layout.moved_mm)
        self.findings += [f"{n} of {len(self.roi.contours)} contour(s): {problem}" for problem, n in problems.items()]
        if made := len(layout.between) + layout.extended:
            self.findings.append(f"{made} slice(s) have no contours of their own and are interpolated between its planes")
        if layout.empty:
            self.findings.append(f"{layout.empty} slice(s) between its contours have none and are left empty")

    def _off_their_images(self, layout: Layout) -> list[float]:
        """By how much contours lie off the image of the series that they name: the points count, but one of the two is wrong."""
        at = {instance.sop_instance_uid: z for z, instance in enumerate(self._header.instances)}
        slices, thick = self._grid.slice_positions_mm, self._grid.slice_thicknesses_mm
        found = []
        for plane in layout.drawn.values():
            for i in plane.contours:
                z = at.get(self.roi.images[i]) if self.roi.images else None
                if z is not None and (off_mm := abs(plane.position_mm - slices[z])) > thick[z] / 2 + EXACT_MM:
                    found.append(float(off_mm))
        return found

    # ── drawn twice ──

    def _without_twins(self, planes: Sequence[Plane]) -> dict[Plane, list[int]]:
        """The contours of each plane without those that are drawn twice: even-odd would make them cancel each other."""
        kept = {plane: self._distinct(plane.contours) for plane in dict.fromkeys(planes)}
        if twins := sum(len(plane.contours) - len(left) for plane, left in kept.items()):
            self.findings.append(f"{twins} of {len(self.roi.contours)} contour(s): left out: drawn twice")
        return kept

    def _distinct(self, contours: Sequence[int]) -> list[int]:
        exact: dict[bytes, int] = {}
        for i in contours:
            points = np.round(self.roi.contours[i], 2)
            exact.setdefault(points[np.lexsort(points.T)].tobytes(), i)
        near = self._near(list(exact.values()))
        left: dict[int, None] = {}
        for i in exact.values():
            if not any(k in left and self._is_twin(self.roi.contours[i], self.roi.contours[k]) for k in near.get(i, ())):
                left[i] = None
        return list(left)

    def _near(self, contours: Sequence[int]) -> dict[int, list[int]]:
        """The earlier contours whose boxes are nowhere further than :data:`TWICE_MM` from that of each contour."""
        if len(contours) < 2:
            return {}
        from scipy.spatial import cKDTree  # a tenth of the service's imports, and the service itself compares nothing

        points = [self.roi.contours[i] for i in contours]
        tree = cKDTree([np.concatenate([one.min(axis=0), one.max(axis=0)]) for one in points])
        if int(tree.count_neighbors(tree, TWICE_MM, p=np.inf)) - len(contours) > _MOST_NEAR:
            self._too_many_twins()
            return {}
        found: dict[int, list[int]] = {}
        for a, b in tree.query_pairs(TWICE_MM, p=np.inf, output_type="ndarray").tolist():
            found.setdefault(contours[max(a, b)], []).append(contours[min(a, b)])
        return found

    def _is_twin(self, a_mm: FloatArray, b_mm: FloatArray) -> bool:
        if self._twins_unknown or not self._budget.takes("steps", steps_of(a_mm) + steps_of(b_mm)):
            self._too_many_twins()
            return False
        return nearly_the_same(a_mm, b_mm, within_mm=TWICE_MM)

    def _too_many_twins(self) -> None:
        self._twins_unknown = True
        if not self.why_not:
            self._refuse("its contours are too many to tell whether any are drawn twice")

    # ── drawing ──

    def _draw_polygons(self, masks: OARMasks, polygons: list[tuple[int, FloatArray]]) -> bool:
        size = np.array(masks.shape[1:])
        outside = sum(bool(np.any((yx <= -1) | (yx >= size))) for _, yx in polygons)
        if outside:
            self.findings.append(f"{outside} contour(s) reach over the edge of the images and are cut there")
        if not self._budget.takes("crossings", count_crossings(polygons, masks.shape[1])):
            return False
        for z, on_slice in _by_slice(polygons).items():
            _, rows, columns = box_of([(0, yx) for yx in on_slice], (1, *masks.shape[1:]))
            corner = np.array([rows.start, columns.start])
            shape = (1, rows.stop - rows.start, columns.stop - columns.start)
            self._put(masks, z, (rows, columns), to_mask([(0, yx - corner) for yx in on_slice], shape))
        return True

    def _interpolate(self, masks: OARMasks, layout: Layout, kept: Mapping[Plane, list[int]]) -> bool:
        grid = self._grid
        for z, lower, upper, share in layout.between:
            below, above = ([self._on_slice(z, i) for i in kept[plane]] for plane in (lower, upper))
            cost = count_crossings([(0, yx) for yx in (*below, *above)], grid.rows)
            voxels = _TO_INTERPOLATE * voxels_of([np.concatenate([*below, *above])], (grid.rows, grid.columns))
            if not self._budget.takes("crossings", cost) or not self._budget.takes("voxels", voxels):
                return False
            spacing_mm = (grid.row_spacing_mm, grid.column_spacing_mm)
            box, mask = between(below, above, share, shape=(grid.rows, grid.columns), spacing_mm=spacing_mm)
            self._put(masks, z, box[1:], mask)
        return True

    def _put(self, masks: OARMasks, z: int, rows_columns: tuple[slice, slice], mask: Mask) -> None:
        masks.put_inside(self.oar, (slice(z, z + 1), *rows_columns), mask)
        self._voxels += int(np.count_nonzero(mask))

    # ── overlaps ──

    def _compare_overlaps(self, planes: Iterable[Sequence[FloatArray]]) -> None:
        """XOR is what the standard says of holes. Of contours that overlap it says nothing, and some take their union."""
        overlaps = [self._overlap(polygons, (self._grid.rows, self._grid.columns)) for polygons in planes]
        shared, found = sum(overlaps), sum(overlap > 0 for overlap in overlaps)
        if not found:
            return
        what = "its contours overlap; what two of them share counts as outside (XOR)"
        self.findings.append(f"in {found} plane(s) {what}")
        if shared > LARGEST_DISPUTED_SHARE * (self._voxels + shared):
            self.why_not = self.why_not or "its contours overlap, so what they enclose is not certain"

    def _overlap(self, polygons: Sequence[FloatArray], shape: tuple[int, int]) -> int:
        """Voxels of one plane that are in dispute; 0 where there is too much to compare, which is told."""
        if len(polygons) < 2:
            return 0
        if self._budget.takes("company", len(polygons)):
            together = [polygons[i] for i in with_company(polygons, shape)]
            if self._budget.takes("voxels", voxels_of(together, shape)):
                return shared_voxels(together, shape) if together else 0
        too_many = "its contours are too many to tell whether any of them overlap"
        if too_many not in self.findings:
            self._refuse(too_many)
        return 0
