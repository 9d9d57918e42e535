"""The CT under contours: that of OpenKBP's patients, and, where a scan of the expert contours is one of them, under those.

OpenKBP gives every fourth row and column of the planning CT, near targets and organs alone. A table (``matched.csv``, see
docs/model.md) names the scans that are in both sets and how one lies on the other.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from oarlock.geometry.masks import Crop
from oarlock.organs.catalogue import BY_NAME, OAR

if TYPE_CHECKING:
    from model_export.prepare import Match

# The readers of the data belong to the training's package, whose dependencies the tests of the core do without: they are imported
# when data is read.

KNOWN: Final = 0.25
"""An organ is judged where at least this share of its voxels lies in the part of the CT that is known."""

Values = npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class LaidCT:
    """A patient's CT, laid under the grid of the same scan's contours.

    :param raw: (z, y, x) as OpenKBP has it: 0 is unknown.
    """

    raw: Values
    match: "Match"

    def under(self, crop: Crop) -> Values | None:
        """The Hounsfield units of an organ's voxels that are known; None if they are too few."""
        from model_export.prepare import NATIVE_PER_VOXEL

        box, mask = crop
        offsets = self.match.slice_offset, self.match.row_offset, self.match.column_offset
        steps = 1, NATIVE_PER_VOXEL, NATIVE_PER_VOXEL
        places = [(np.arange(s.start, s.stop) - offset) // step for s, offset, step in zip(box, offsets, steps, strict=True)]
        inside = [(place >= 0) & (place < size) for place, size in zip(places, self.raw.shape, strict=True)]
        raw = self.raw[np.ix_(*(np.where(known, place, 0) for place, known in zip(places, inside, strict=True)))]
        known = inside[0][:, None, None] & inside[1][:, None] & inside[2]
        return known_hu(np.where(known, raw, 0)[mask])

    def interpolated(self) -> Values:
        """(z, y, x) Hounsfield units on the rows and columns of the scan, linear between those that are known.

        What is not known counts as air: OpenKBP's region ends at the skin in most patients, and beyond it in the others.
        """
        from model_export.datasets.openkbp import RAW_OFFSET_HU
        from model_export.prepare import NATIVE_PER_VOXEL

        hu = np.where(self.raw > 0, self.raw - np.int16(RAW_OFFSET_HU), np.int16(-1000))
        return ndimage.zoom(hu, (1, NATIVE_PER_VOXEL, NATIVE_PER_VOXEL), order=1, mode="nearest", grid_mode=True)

    def moved(self, crop: Crop) -> Crop | None:
        """An organ in the coordinates of :meth:`interpolated`; None unless all of it lies there and in the known part."""
        box, mask = crop
        offsets = self.match.slice_offset, self.match.row_offset, self.match.column_offset
        z, y, x = (slice(s.start - offset, s.stop - offset) for s, offset in zip(box, offsets, strict=True))
        values = self.under(crop)
        return ((z, y, x), mask) if values is not None and values.size == np.count_nonzero(mask) else None


def known_hu(raw: Values) -> Values | None:
    """The known Hounsfield units among an organ's raw values; None if they are too few."""
    from model_export.datasets.openkbp import RAW_OFFSET_HU

    known = raw[raw > 0]
    return known - np.int16(RAW_OFFSET_HU) if known.size >= max(KNOWN * raw.size, 1) else None


@dataclass(frozen=True)
class PlanningCTs:
    """By case the CT under the expert contours, and by organ the Hounsfield units in what was drawn on OpenKBP's patients."""

    laid: Mapping[str, LaidCT]
    drawn: Mapping[OAR, Sequence[tuple[str, Values]]]

    @classmethod
    def read(cls, openkbp: Path, matched: Path) -> "PlanningCTs":
        """A folder of OpenKBP's patients and the table of matched scans."""
        from model_export.datasets.openkbp import read_patients
        from model_export.prepare import read_matches

        matches = read_matches(matched)
        laid: dict[str, LaidCT] = {}
        drawn: dict[OAR, list[tuple[str, Values]]] = defaultdict(list)
        for patient in read_patients(openkbp):
            if (match := matches.get(patient.name)) is not None:
                laid[match.case] = LaidCT(patient.raw, match)
            for name, mask in patient.masks.items():
                if (values := known_hu(patient.raw[mask])) is not None:
                    drawn[BY_NAME[name]].append((match.case if match else patient.name, values))
        return cls(laid, drawn)

    def without(self, patient: str) -> "PlanningCTs":
        """As if a patient of the expert contours had not been seen; the scans of one patient differ by a letter."""
        drawn = {oar: [one for one in found if one[0].rstrip("abc") != patient] for oar, found in self.drawn.items()}
        return PlanningCTs(self.laid, drawn)
