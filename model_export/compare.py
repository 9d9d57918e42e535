"""Two models on the same scans.

By how much the one draws each organ better than the other.

Both draw every scan; what counts is the difference on each scan, for scans differ more from each other than models do. A decision
to upgrade rests on the mean of these differences and its confidence interval, not on two means.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from oarlock.ct.series import CTSeries, check_headers, read_ct_series
from oarlock.errors import NoCTImages, StructureSetError
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.skin import Surroundings
from oarlock.organs.catalogue import OAR, OARS
from oarlock.pipeline.comparison import read_on_grid
from oarlock.qa.lattice import Lattice
from oarlock.qa.measures import measure_crops
from oarlock.segmentation.clean_up import clean_up
from oarlock.segmentation.segment import Model, segment
from oarlock.segmentation.within_skin import within_skin

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Pair:
    """What two models are worth on one organ of one scan.

    :ivar first, second: volumetric and surface DSC; 0 where nothing was drawn.
    """

    scan: str
    oar: OAR
    first: tuple[float, float]
    second: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """Second less first, over the scans that show an organ.

    :ivar interval: of the mean at ``CONFIDENCE``, from the t distribution; None for a single scan.
    """

    scans: int
    first: float
    second: float
    mean: float
    interval: tuple[float, float] | None


def compare_models(first: Model, second: Model, folder: Path) -> Iterator[Pair]:
    """Both models on each scan of a folder.

    :param folder: of folders, each with one CT series and RTSTRUCTs with contours of it.
    :returns: for each organ that a scan has contours of and both models draw.
    """
    for scan in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path for path in scan.rglob("*") if path.is_file())
        try:
            ct = read_ct_series(check_headers(files))
        except NoCTImages:
            continue
        drawn = [delivered(model, ct.hu, ct.header.grid) for model in (first, second)]
        for oar, reference in _references(files, ct):
            if all(oar in masks.oars for masks in drawn):
                scores = [_scores(masks, reference, oar, ct) for masks in drawn]
                yield Pair(scan.name, oar, scores[0], scores[1])


def delivered(model: Model, hu: npt.NDArray[np.int16], grid: Grid) -> OARMasks:
    """What a job would deliver.

    :param hu: (z, y, x) Hounsfield units on ``grid``.
    """
    masks = segment(hu, grid, model).masks
    within_skin(masks, Surroundings(hu, grid))
    clean_up(masks, grid)
    return masks


def _references(files: Sequence[Path], ct: CTSeries) -> Iterator[tuple[OAR, OARMasks]]:
    """Each organ with contours in an RTSTRUCT of the scan."""
    for path in files:
        try:
            found = read_on_grid(path, ct.header)
        except StructureSetError:
            continue  # an image, or a structure set of another scan
        for oar in found.masks.oars:
            if found.masks.crop(oar) is not None:
                yield oar, found.masks


def _scores(drawn: OARMasks, reference: OARMasks, oar: OAR, ct: CTSeries) -> tuple[float, float]:
    """Volumetric DSC, and surface DSC at the organ's tolerance (unrounded where the lattice has no one step)."""
    lattice = Lattice.of(ct.header.grid)
    found = measure_crops(drawn.crop(oar), reference.crop(oar), lattice=lattice, tolerance_mm=oar.tolerance_mm)
    surface = found.surface_dsc if found.surface_dsc is not None else found.surface_dsc_unrounded
    return found.volumetric_dsc or 0.0, surface or 0.0


def differences(pairs: Sequence[Pair], which: int) -> Mapping[OAR, Difference]:
    """Of each organ, in the catalogue's order.

    :param which: 0 for the volumetric DSC, 1 for the surface DSC.
    """
    of_each = {oar: [pair for pair in pairs if pair.oar == oar] for oar in OARS}
    return {oar: _difference(found, which) for oar, found in of_each.items() if found}


def _difference(pairs: Sequence[Pair], which: int) -> Difference:
    """Over scans: what several observers say of one scan is no more than one scan, so their mean counts."""
    of_scan: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        of_scan.setdefault(pair.scan, []).append((pair.first[which], pair.second[which]))
    first, second = np.array([np.mean(seen, axis=0) for seen in of_scan.values()]).T
    apart, n = second - first, len(of_scan)
    mean, interval = float(apart.mean()), None
    if n > 1:
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * apart.std(ddof=1) / np.sqrt(n))
        interval = (mean - reach, mean + reach)
    return Difference(n, float(first.mean()), float(second.mean()), mean, interval)


def to_table(pairs: Sequence[Pair]) -> str:
    """Both measures of each organ as a Markdown table."""
    lines = ["| organ | measure | scans | first | second | difference | 95 % interval |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    for which, name in enumerate(("volumetric DSC", "surface DSC")):
        for oar, found in differences(pairs, which).items():
            interval = f"{found.interval[0]:+.3f} to {found.interval[1]:+.3f}" if found.interval else "one scan"
            shown = f"{found.first:.3f} | {found.second:.3f} | {found.mean:+.3f} | {interval}"
            lines.append(f"| {oar} | {name} | {found.scans} | {shown} |")
    return "\n".join(lines)
