"""The atlases: matched scans whose released contours are carried over.

Each also as its mirror image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from model_export.datasets.released_contours import RATERS, read_case
from model_export.prepare import Match, cut, known_box
from model_export.transferred.neighbourhoods import Neighbourhood
from model_export.transferred.registration import SLACK_MM, Surroundings, surroundings
from model_export.transferred.scans import F32, NATIVE_PER_VOXEL, Image, Mask, Point, Scan, centre_mm, to_image, to_mm
from oarlock.organs.catalogue import BY_NAME, other_side

MARGIN_VOXELS: Final = 3
WHOLE: Final = 0.85
"""A landmark of which less lies in the known CT is none."""


@dataclass(frozen=True, slots=True)
class Share:
    """One organ on the native grid of a scan.

    Shares (z, y, x) of both raters' drawings, cut close, from a first index on.
    """

    values: F32
    first: tuple[int, int, int]


@dataclass(frozen=True)
class Atlas:
    """A scan with contours, by organ."""

    case: str
    is_mirrored: bool
    scan: Scan
    shares: Mapping[str, Share]
    neighbourhood: Neighbourhood

    @cached_property
    def centres(self) -> dict[str, Point]:
        """The middle of each organ, (x, y, z) in mm."""
        return {name: share_centre_mm(share, self.scan) for name, share in self.shares.items()}

    @cached_property
    def moving(self) -> Surroundings:
        """The scan, ready to be laid on another one."""
        near = self.neighbourhood
        return surroundings(self.scan, [self.centres[name] for name in near.landmarks], near.margin_mm, slack_mm=SLACK_MM)

    @cached_property
    def images(self) -> dict[str, Image]:
        """The organs to carry over."""
        return {
            name: to_image(share.values, self.scan.spacing_mm, first=share.first, factor=NATIVE_PER_VOXEL)
            for name, share in self.shares.items()
            if name in self.neighbourhood.anchors
        }


def read_atlases(scans: Mapping[str, Scan], matches: Mapping[str, Match], contours: Path, near: Neighbourhood) -> list[Atlas]:
    """Every matched scan that shows the landmarks, and its mirror image.

    Those of a neighbourhood, as far known as it asks; `scans` by patient.
    """
    atlases = []
    for patient, match in matches.items():
        if patient not in scans:
            continue
        shares = read_shares(scans[patient], match, contours, (*near.organs, *near.landmarks))
        known = {name: share_known(scans[patient], share) for name, share in shares.items()}
        if all(known.get(name, 0.0) >= WHOLE for name in near.landmarks):
            kept = {name: share for name, share in shares.items() if known[name] >= near.least_known or name in near.landmarks}
            plain = Atlas(match.case, is_mirrored=False, scan=scans[patient], shares=kept, neighbourhood=near)
            atlases += [plain, mirror_image(plain)] if near.with_mirrored else [plain]
    return atlases


def mirror_image(atlas: Atlas) -> Atlas:
    """The atlas with left and right exchanged."""
    columns = NATIVE_PER_VOXEL * atlas.scan.hu.shape[2]
    shares = {}
    for name, share in atlas.shares.items():
        first = (share.first[0], share.first[1], columns - share.first[2] - share.values.shape[2])
        shares[other_side(BY_NAME[name]).name] = Share(share.values[:, :, ::-1].copy(), first)
    return Atlas(
        atlas.case,
        is_mirrored=not atlas.is_mirrored,
        scan=atlas.scan.mirrored(),
        shares=shares,
        neighbourhood=atlas.neighbourhood,
    )


def read_shares(scan: Scan, match: Match, contours: Path, organs: Sequence[str]) -> dict[str, Share]:
    """Organs of a matched scan.

    The mean of both raters, on its native grid.
    """
    raters = [read_case(contours, match.case, rater, organs) for rater in RATERS]
    found = {}
    for name in dict.fromkeys(organs):
        masks = [cut(rater[name].mask, *native_ranges(scan, match)) for rater in raters if name in rater]
        if masks and any(mask.any() for mask in masks):
            found[name] = _close(masks)
    return found


def native_ranges(scan: Scan, match: Match) -> tuple[tuple[int, int], ...]:
    """Which part of the released contours lies over their scan.

    Slices, rows and columns over its whole grid.
    """
    starts = (match.slice_offset, match.row_offset, match.column_offset)
    sizes = (scan.hu.shape[0], *(NATIVE_PER_VOXEL * count for count in scan.hu.shape[1:]))
    return tuple((start, start + size) for start, size in zip(starts, sizes, strict=True))


def share_known(scan: Scan, share: Share) -> float:
    """How much of an organ lies in the known CT."""
    index = [
        (first + np.arange(count)) // factor
        for first, count, factor in zip(share.first, share.values.shape, (1, NATIVE_PER_VOXEL, NATIVE_PER_VOXEL), strict=True)
    ]
    return float(share.values[scan.known[np.ix_(*index)]].sum() / share.values.sum())


def share_centre_mm(share: Share, scan: Scan) -> Point:
    """The middle of an organ, (x, y, z) in mm."""
    x, y, z = centre_mm(share.values, (1.0, 1.0, 1.0))
    z_mm, y_mm, x_mm = scan.spacing_mm
    return (
        to_mm(x + share.first[2], NATIVE_PER_VOXEL) * x_mm,
        to_mm(y + share.first[1], NATIVE_PER_VOXEL) * y_mm,
        (z + share.first[0]) * z_mm,
    )


def _close(masks: Sequence[Mask]) -> Share:
    """The mean of some masks, with a margin around what is drawn so that an interpolation ends in nothing."""
    box = known_box(np.any(masks, axis=0))
    spans = [
        slice(max(0, span.start - MARGIN_VOXELS), min(count, span.stop + MARGIN_VOXELS))
        for span, count in zip(box, masks[0].shape, strict=True)
    ]
    z, y, x = spans
    return Share(np.mean([mask[z, y, x] for mask in masks], axis=0, dtype=np.float32), (z.start, y.start, x.start))
