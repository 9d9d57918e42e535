"""How well a model folder draws public scans.

By all of its parts, with what a job does with their answers.

A matched scan is shown as fine as the released contours are, by interpolation; a scan of OpenKBP as it is. What is delivered
is compared where the CT is known, with the oncologist's contours or OpenKBP's; the radiographer's are scored beside it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from model_export.boxes.judge import where_it_judges
from model_export.compare import delivered
from model_export.datasets.released_contours import RATERS, read_case
from model_export.edges import LEAST_SHOWN_ML, grid_of, on_finer_pixels
from model_export.evaluate import OrganResult, surface_dsc, volumetric_dsc
from model_export.prepare import Match, cut
from model_export.transferred.atlases import native_ranges
from model_export.transferred.scans import F32, NATIVE_PER_VOXEL, Mask, Scan
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.segment import Model

WRONG_REFERENCES: Final = MappingProxyType(
    {
        "pt_211": "a brainstem of 11 ml, and one parotid 1.7 times as large as the other",
        "pt_214": "a brainstem of 15 ml and a parotid of 5 ml, without the other one",
        "pt_215": "a spinal cord of 22 cm² a slice: an avoidance region",
        "pt_216": "a spinal cord of 32 cm² a slice: an avoidance region",
        "pt_221": "organs that do not lie on the CT: bone in the brainstem and in the cord",
    }
)
"""Scans of OpenKBP's validation that say nothing of a model."""

SHARPENED: Final = 4
"""How often the difference to the scan's own values is added; a twentieth of a step is then left at a corner."""

CUT_OFF: Final = frozenset({"Brain", "Lung_L", "Lung_R"})
"""Organs that most public scans cut. What is known of them counts, from ``LEAST_SHOWN_ML`` on."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A scan as a model is shown it.

    With what others drew on it.

    :ivar finer: pixels along a row or a column for each one of the scan.
    :ivar raters: masks (z, y, x) by organ, on those pixels: of who judges, and of the radiographer where there is one.
    """

    scan: Scan
    name: str
    source: str
    finer: int
    raters: tuple[Mapping[str, Mask], ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the pixels, (z, y, x)."""
        z, y, x = self.scan.spacing_mm
        return z, y / self.finer, x / self.finer

    @property
    def known(self) -> Mask:
        """What is known of the CT, (z, y, x)."""
        return self.scan.known.repeat(self.finer, axis=1).repeat(self.finer, axis=2)


def shown_matched(scan: Scan, match: Match, contours: Path) -> Shown:
    """A matched scan, with what both raters drew."""
    ranges = native_ranges(scan, match)
    raters = [read_case(contours, match.case, rater, list(BY_NAME)) for rater in RATERS]
    masks = [{name: cut(organ.mask, *ranges) for name, organ in rater.items()} for rater in raters]
    return Shown(scan, match.case, "matched", NATIVE_PER_VOXEL, tuple(masks))


def shown_openkbp(scan: Scan) -> Shown:
    """A scan of OpenKBP, with its own contours."""
    return Shown(scan, scan.name, "openkbp", 1, (scan.masks,))


def judge(model: Model, shown: Shown) -> Iterator[OrganResult]:
    """A score of each organ.

    Of those that the model draws and the scan shows.
    """
    hu = np.rint(finer_hu(shown.scan.hu, shown.finer)).astype(np.int16)
    drawn = delivered(model, hu, grid_of(shown.scan, shown.finer))
    known, spacing_mm = shown.known, shown.spacing_mm
    voxel_cm3 = float(np.prod(spacing_mm)) / 1000
    for oar in drawn.oars:
        masks = [rater.get(oar.name) for rater in shown.raters]
        counted = None if masks[0] is None else _counted(oar.name, masks[0], known, voxel_cm3)
        if masks[0] is None or counted is None:
            continue
        reference, ours = masks[0] & counted, drawn.mask(oar) & counted
        human = masks[1] & counted if len(masks) > 1 and masks[1] is not None else None
        yield OrganResult(
            case=shown.name,
            source=shown.source,
            oar=oar.name,
            dsc=volumetric_dsc(ours, reference),
            human_dsc=None if human is None else volumetric_dsc(human, reference),
            predicted_cm3=round(float(ours.sum()) * voxel_cm3, 3),
            reference_cm3=round(float(reference.sum()) * voxel_cm3, 3),
            surface_dsc=surface_dsc(ours, reference, spacing_mm, oar.tolerance_mm),
            human_surface_dsc=None if human is None else surface_dsc(human, reference, spacing_mm, oar.tolerance_mm),
        )


def finer_hu(hu: F32, factor: int) -> F32:
    """CT on finer pixels, whose means are the pixels' own values.

    It is smooth. Linear interpolation alone blurs: a model, which takes such means, would be shown less than the scan holds.
    (z, y, x) to (z, factor · y, factor · x).
    """
    slices, rows, columns = hu.shape
    finer = np.zeros((slices, factor * rows, factor * columns), np.float32)
    for _ in range(SHARPENED):
        finer += on_finer_pixels(hu - finer.reshape(slices, rows, factor, columns, factor).mean(axis=(2, 4)), factor)
    return finer


def _counted(organ: str, reference: Mask, known: Mask, voxel_cm3: float) -> Mask | None:
    """The voxels that are compared; None where too little of the organ is known."""
    if organ in CUT_OFF:
        return known if (reference & known).sum() * voxel_cm3 >= LEAST_SHOWN_ML else None
    return where_it_judges(organ, reference, known)
