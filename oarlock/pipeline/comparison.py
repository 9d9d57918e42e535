"""From RTSTRUCT files on one series to the QA report.

The one way that the worker, the service and the command line share.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.ct.series import SeriesHeader
from oarlock.errors import StructureSetError
from oarlock.facts import Notice
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, OARMasks
from oarlock.organs.catalogue import OAR
from oarlock.organs.roi_names import match_rois
from oarlock.pictures.review import Overlay, Points, pack_overlay
from oarlock.pipeline.apart import Limits, run_apart
from oarlock.qa.checks.finding import Finding
from oarlock.qa.interobserver import OrganCrops, Spread, spread
from oarlock.qa.lattice import Lattice
from oarlock.qa.report import Making, QAReport, Remarks, Source, compare, job_report, tolerance_table
from oarlock.qa.site_file import Site
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set

ROOM_BYTES: Final = 2**30
"""Memory for two structure sets and their comparison, beside the words of the masks; 21 real organs take a quarter."""

CPU_S: Final = 30
"""CPU time for the same, where no other budget stops it; two structure sets of 21 organs on a real series take 6 s."""

Bits = npt.NDArray[np.uint8]

NO_SITE_FILE: Final = Site()
"""A site without names and tolerances of its own."""


@dataclass(frozen=True, eq=False)
class StructureSetOnGrid:
    """The organs of one structure set on the grid of a series.

    :param matched_rois: name of the ROI of each OAR.
    :param unmatched, ambiguous: names of the ROIs that were left out.
    :param warnings: what of the file could not be used.
    :param remarks: which organs must not be scored as if they were whole, and why.
    """

    source: Source
    masks: OARMasks
    matched_rois: Mapping[OAR, str] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    warnings: tuple[Notice, ...] = ()
    remarks: Remarks = field(default_factory=Remarks)

    def crops(self) -> OrganCrops:
        """Each organ that is whole and not empty, cut out.

        Some megabytes, where the whole masks are hundreds.
        """
        whole = [oar for oar in self.masks.oars if oar not in self.remarks.not_scored]
        return {oar: crop for oar in whole if (crop := self.masks.crop(oar)) is not None}


def read_on_grid(path: Path, header: SeriesHeader, site: Site = NO_SITE_FILE) -> StructureSetOnGrid:
    """An RTSTRUCT on the grid of a series, matched to OARs.

    :raises StructureSetError: if the file cannot be read, or belongs to another scan.
    """
    structure_set = read_structure_set(path)
    matches = match_rois(structure_set.rois, site_names=site.names)
    placed = rois_to_masks(structure_set, header, {oar: roi.number for oar, roi in matches.matched.items()})
    return StructureSetOnGrid(
        source=Source(structure_set.sop_instance_uid, structure_set.label),
        masks=placed.masks,
        matched_rois={oar: roi.name for oar, roi in matches.matched.items()},
        unmatched=matches.unmatched,
        ambiguous=matches.ambiguous,
        warnings=placed.warnings,
        remarks=Remarks(placed.not_scored, placed.hollow, matches.contested),
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One RTSTRUCT of a comparison.

    :param header: the series as this file knows it.
    :param part: of the upload that the file came in, for the sentence of an error; empty for none.
    """

    path: Path
    header: SeriesHeader
    part: str = ""

    def read(self, site: Site) -> StructureSetOnGrid:
        """The file on the grid of its series.

        :raises StructureSetError: if it cannot be used; its sentence names the part.
        """
        try:
            return read_on_grid(self.path, self.header, site)
        except StructureSetError as error:
            raise error.reworded(f"Part '{self.part}': {error.detail}" if self.part else error.detail) from error


def compare_files(predicted: Side, reference: Side, site: Site) -> QAReport:
    """The report of two RTSTRUCTs that strangers may have made.

    In bounded memory and time.

    :raises StructureSetError: if one of them cannot be used; its sentence names the part.
    """
    limits = limits_on(reference.header.grid, predicted.path, reference.path)
    return run_apart(limits, _compare_files, predicted, reference, site)


def _compare_files(predicted: Side, reference: Side, site: Site) -> QAReport:
    return compare_on_grid(predicted.read(site), reference.read(site), reference.header, site)


@dataclass(frozen=True, slots=True)
class Shown:
    """A comparison, with the reference as the review page shows it.

    It is laid over ours.

    :ivar overlay, data: its entry in a review's head, and what the entry's parts lie in (docs/web.md).
    """

    report: QAReport
    overlay: Mapping[str, Any]
    data: bytes


def compare_and_show(predicted: Side, reference: Side, site: Site) -> Shown:
    """The same as :func:`compare_files`, with the reference for the review page.

    :raises StructureSetError: as there.
    """
    limits = limits_on(reference.header.grid, predicted.path, reference.path)
    return run_apart(limits, _compare_and_show, predicted, reference, site)


def _compare_and_show(predicted: Side, reference: Side, site: Site) -> Shown:
    theirs = reference.read(site)
    report = compare_on_grid(predicted.read(site), theirs, reference.header, site)
    return Shown(report, *pack_overlay(Overlay(theirs.crops(), _beyond(report)), reference.header.grid))


def read_bounded(path: Path, header: SeriesHeader, site: Site) -> StructureSetOnGrid:
    """:func:`read_on_grid` of a stranger's file, in bounded memory and time.

    :raises StructureSetError: if the file cannot be used.
    """
    found, crops = run_apart(limits_on(header.grid, path), _read_crops, path, header, site)
    masks = OARMasks.empty(found.masks.oars, header.grid.shape)
    for oar, (box, packed) in crops.items():
        shape = [along.stop - along.start for along in box]
        masks.put_inside(oar, box, np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(np.bool_))
    return replace(found, masks=masks)


def _read_crops(path: Path, header: SeriesHeader, site: Site) -> tuple[StructureSetOnGrid, dict[OAR, tuple[Box, Bits]]]:
    """What was read, its masks as packed crops: some hundred kilobytes instead of hundreds of megabytes."""
    found = read_on_grid(path, header, site)
    crops = {oar: crop for oar in found.masks.oars if (crop := found.masks.crop(oar)) is not None}
    packed = {oar: (box, np.packbits(mask)) for oar, (box, mask) in crops.items()}
    return replace(found, masks=OARMasks.empty(found.masks.oars, (1, 1, 1))), packed


def limits_on(grid: Grid, *files: Path) -> Limits:
    """What the judgement of structure sets on a grid may take.

    Two words a voxel, and room for what is in them.
    """
    return Limits(ROOM_BYTES + 8 * math.prod(grid.shape), CPU_S, files)


def compare_on_grid(
    predicted: StructureSetOnGrid, reference: StructureSetOnGrid, header: SeriesHeader, site: Site = NO_SITE_FILE
) -> QAReport:
    """The report of one pair."""
    report = compare(
        predicted.masks,
        reference.masks,
        header.grid,
        matched_rois=reference.matched_rois,
        predicted_source=predicted.source,
        reference_source=reference.source,
        unmatched=reference.unmatched,
        ambiguous=reference.ambiguous,
        predicted_unmatched=predicted.unmatched,
        predicted_ambiguous=predicted.ambiguous,
        series_instance_uid=header.series_instance_uid,
        tolerances_mm=site.tolerances_mm,
        predicted_rois=predicted.matched_rois,
        action_levels=site.action_levels,
        predicted_remarks=predicted.remarks,
        reference_remarks=reference.remarks,
    )
    sides = (("Predicted", predicted), ("Reference", reference))
    notes = [Notice(note.code, f"{side} RTSTRUCT: {note.detail}") for side, drawing in sides for note in drawing.warnings]
    return replace(report, warnings=(*header.warnings, *notes, *_coarse(report)))


def _coarse(report: QAReport) -> list[Notice]:
    """A tolerance of half a pixel or less rounds to 0 mm, and surface_dsc then asks for surfaces that coincide."""
    names = [score.oar.name for score in report.scores if score.measured.tolerance_rounded_mm == 0]
    if not names:
        return []
    detail = f"The pixels are too large for the tolerance of {', '.join(names)}: it rounds to 0 mm, so surface_dsc only counts "
    return [Notice("comparison.tolerance_rounds_to_zero", detail + "surfaces that coincide. Read surface_dsc_unrounded there.")]


def _beyond(report: QAReport) -> dict[OAR, tuple[Points, Points]]:
    """Of each organ that was compared, the surface points beyond its tolerance: ours and the observer's."""
    compared = ((score.oar, score.beyond) for score in report.scores if score.beyond is not None)
    return {
        oar: ((far.predicted.raster, far.predicted.distances_mm), (far.reference.raster, far.reference.distances_mm))
        for oar, far in compared
    }


@dataclass(eq=False)
class ComparisonSet:
    """One set of contours against several observers' on one series.

    One after another.

    Only what the observers drew is kept of them, each organ in its box, so the memory does not grow by a volume for each.
    """

    predicted: StructureSetOnGrid
    header: SeriesHeader
    site: Site = NO_SITE_FILE
    reports: list[QAReport] = field(default_factory=list)
    _drawn: list[OrganCrops] = field(default_factory=list)

    def add(self, reference: StructureSetOnGrid, *, position: int | None = None) -> QAReport:
        """Compare with one more observer.

        :param position: of the reference among all that were supplied, from 1, those that cannot be used among them.
        """
        place = position or len(self.reports) + 1
        report = replace(compare_on_grid(self.predicted, reference, self.header, self.site), position=place)
        self.reports.append(report)
        self._drawn.append(reference.crops())
        return report

    def overlays(self) -> list[Overlay]:
        """Each observer's organs, and where they and ours are too far apart."""
        return [Overlay(drawn, _beyond(report)) for report, drawn in zip(self.reports, self._drawn, strict=True)]

    @property
    def drawn(self) -> Sequence[OrganCrops]:
        """What each observer drew, in the order in which they were added."""
        return self._drawn

    def observers(self) -> tuple[Spread, ...]:
        """The spread between the observers beside ours.

        Empty with fewer than two of them.
        """
        if len(self.reports) < 2:
            return ()
        lattice = Lattice.of(self.header.grid)
        ours = [report.measured for report in self.reports]
        return spread(ours, self._drawn, lattice=lattice, tolerances_mm=self.site.tolerances_mm)

    def report(
        self, checks: Iterable[Finding], not_compared: Sequence[Mapping[str, Any]] = (), *, made: Making | None = None
    ) -> dict[str, Any]:
        """The QA report of a job, or of a stranger's contours.

        Without ``made`` the contours are not a job's.
        """
        grid = self.header.grid
        return job_report(
            self.header.series_instance_uid,
            self.reports,
            checks,
            self.observers(),
            not_compared,
            grid=grid,
            made=made,
            site=self.site.name,
            tolerances=tolerance_table(self.predicted.masks.oars, grid, self.site.tolerances_mm),
        )
