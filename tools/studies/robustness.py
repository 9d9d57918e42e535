"""What the shipped model draws on a changed scan.

``python -m tools.studies.robustness SERIES``; the scan is a real one.

Each change is one that a hospital sees: the patient mirrored (as a file read the wrong way would show them), a noisier tube
current, another HU scale, a smoother and a sharper reconstruction kernel, slices of 1 to 5 mm, streaks from dental fillings, a
head without shoulders, shoulders without head, a couch. The table gives the Dice of what is drawn then with what is drawn on the
scan as it is, OAR by OAR.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from oarlock.arrays import Mask
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.skin import Surroundings
from oarlock.inference.models import load
from oarlock.organs.catalogue import BY_NAME, OAR, OARS, other_side
from oarlock.segmentation.clean_up import clean_up
from oarlock.segmentation.manifest import read_manifest
from oarlock.segmentation.resampling import body_box_mm
from oarlock.segmentation.segment import Model, segment
from oarlock.segmentation.within_skin import within_skin

HU = npt.NDArray[np.int16]
SEED: Final = 1
KERNEL_MM: Final = 1.0


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT (z, y, x) HU and its grid."""

    hu: HU
    grid: Grid


@dataclass(frozen=True)
class Changed:
    """A changed scan, and what its masks are compared with.

    For an OAR drawn on it, the reference's mask on the same voxels.
    """

    scan: Scan
    reference: Callable[[OAR], Mask]


def draw(scan: Scan, model: Model) -> OARMasks:
    """What a job draws on a scan."""
    masks = segment(scan.hu, scan.grid, model).masks
    within_skin(masks, Surroundings(scan.hu, scan.grid))
    clean_up(masks, scan.grid)
    return masks


def in_place(change: Callable[[HU], npt.NDArray[Any]]) -> Callable[[Scan, OARMasks], Changed]:
    """A change of Hounsfield units alone."""

    def changed(scan: Scan, masks: OARMasks) -> Changed:
        hu = np.clip(change(scan.hu), -1024, 3071).astype(np.int16)
        return Changed(replace(scan, hu=hu), masks.mask)

    return changed


def noisy(hu: HU) -> npt.NDArray[Any]:
    """Independent noise of 20 HU."""
    return hu + np.random.default_rng(SEED).normal(0.0, 20.0, hu.shape)


def other_kernel(sharper: float) -> Callable[[Scan, OARMasks], Changed]:
    """Another reconstruction kernel.

    The scan, and so many times what a Gaussian of ``KERNEL_MM`` (SD) in plane takes from it; -1 is the Gaussian itself.
    """

    def changed(scan: Scan, masks: OARMasks) -> Changed:
        hu, steps_mm = scan.hu.astype(np.float32), (scan.grid.row_spacing_mm, scan.grid.column_spacing_mm)
        smooth = ndimage.gaussian_filter(hu, (0.0, *(KERNEL_MM / step for step in steps_mm)), mode="nearest")
        sharp = np.clip(np.rint(hu + sharper * (hu - smooth)), -1024, 3071).astype(np.int16)
        return Changed(replace(scan, hu=sharp), masks.mask)

    return changed


def mirrored_scan(scan: Scan, masks: OARMasks) -> Changed:
    """Left and right exchanged.

    What is drawn must be the mirror image, on the other side.
    """
    return Changed(replace(scan, hu=scan.hu[:, :, ::-1]), lambda oar: masks.mask(other_side(oar))[:, :, ::-1])


def resliced(spacing_mm: float) -> Callable[[Scan, OARMasks], Changed]:
    """Slices of another thickness.

    The mean over a slice's extent where it is thicker, interpolated where it is thinner.
    """

    def changed(scan: Scan, masks: OARMasks) -> Changed:
        origins = scan.grid.origins_mm
        at_mm = scan.grid.slice_positions_mm
        wanted = np.arange(at_mm[0] + spacing_mm / 2, at_mm[-1] - spacing_mm / 2, spacing_mm)
        inner = np.linspace(-0.5, 0.5, 9)[1:-1] * spacing_mm
        where = np.interp(wanted[:, None] + inner, at_mm, np.arange(len(at_mm)))  # (slices, samples) fractional indices
        hu = np.stack([_mean_of_slices(scan.hu, row) for row in where])
        centres = np.stack([np.interp(wanted, at_mm, origins[:, axis]) for axis in range(3)], axis=1)
        nearest = np.rint(np.interp(wanted, at_mm, np.arange(len(at_mm)))).astype(int)
        grid = replace(scan.grid, origins_mm=centres)
        return Changed(Scan(hu, grid), lambda oar: masks.mask(oar)[nearest])

    return changed


def _mean_of_slices(hu: HU, indices: npt.NDArray[np.float64]) -> HU:
    weights = np.zeros(len(hu))
    low = np.floor(indices).astype(int)
    np.add.at(weights, low, 1 - (indices - low))
    np.add.at(weights, np.minimum(low + 1, len(hu) - 1), indices - low)
    used = np.flatnonzero(weights)
    return np.rint(np.tensordot(weights[used] / len(indices), hu[used], axes=1)).astype(np.int16)


def streaked(scan: Scan, masks: OARMasks) -> Changed:
    """Two fillings in the mandible, and their streaks.

    In its upper part; the streaks are in the slices around them and fade with the distance.
    """
    jaw = np.argwhere(masks.mask(BY_NAME["Bone_Mandible"]))
    level = int(np.percentile(jaw[:, 0], 60))
    reach = max(1, round(6.0 / scan.grid.spacing_mm[0]))
    on_level = jaw[abs(jaw[:, 0] - level) <= reach]
    hu = scan.hu.astype(np.float32)
    rows, columns = np.indices(scan.grid.shape[1:])
    rng = np.random.default_rng(SEED)
    for share in (0.15, 0.85):  # one on each side
        y, x = on_level[np.argsort(on_level[:, 2])[int(share * (len(on_level) - 1))]][1:]
        distance = np.hypot(rows - y, columns - x) + 1.0
        angle = np.arctan2(rows - y, columns - x)
        for z in range(level - reach, level + reach + 1):
            rays = rng.normal(0.0, 400.0, 360)
            hu[z] += (
                np.interp((angle + np.pi) / (2 * np.pi) * 360, np.arange(360), rays) * np.sqrt(8.0 / distance) * (hu[z] > -500)
            )
            hu[z][distance < 6.0] = 3071.0
    return Changed(replace(scan, hu=np.clip(hu, -1024, 3071).astype(np.int16)), masks.mask)


def head_alone(scan: Scan, masks: OARMasks) -> Changed:
    """From the lower edge of the mandible upwards."""
    return _part(scan, masks, slice(_lowest(masks, "Bone_Mandible"), None))


def shoulders_alone(scan: Scan, masks: OARMasks) -> Changed:
    """What lies below the lower edge of the mandible."""
    return _part(scan, masks, slice(0, _lowest(masks, "Bone_Mandible")))


def _part(scan: Scan, masks: OARMasks, kept: slice) -> Changed:
    part = Scan(scan.hu[kept], replace(scan.grid, origins_mm=scan.grid.origins_mm[kept]))
    return Changed(part, lambda oar: masks.mask(oar)[kept])


def _lowest(masks: OARMasks, name: str) -> int:
    return int(np.flatnonzero(masks.mask(BY_NAME[name]).any(axis=(1, 2)))[0])


def on_a_couch(scan: Scan, masks: OARMasks) -> Changed:
    """A couch: a carbon shell around 50 mm of foam.

    The shell is 3 mm thick; 1 cm behind the back, as wide as the scan.
    """
    box = body_box_mm(scan.hu, scan.grid)
    assert box is not None
    back = int(np.ceil((box[1][1] - scan.grid.origins_mm[0, 1]) / scan.grid.row_spacing_mm)) + round(
        10 / scan.grid.row_spacing_mm
    )
    shell, thick = max(1, round(3 / scan.grid.row_spacing_mm)), round(50 / scan.grid.row_spacing_mm)
    hu = scan.hu.copy()
    hu[:, back : back + thick] = np.maximum(hu[:, back : back + thick], -920)
    for edge in (back, back + thick - shell):
        hu[:, edge : edge + shell] = np.maximum(hu[:, edge : edge + shell], -150)
    return Changed(replace(scan, hu=hu), masks.mask)


VARIANTS: Final[Mapping[str, Callable[[Scan, OARMasks], Changed]]] = {
    "mirrored": mirrored_scan,
    "noise 20 HU": in_place(noisy),
    "+50 HU": in_place(lambda hu: np.where(hu > -1000, hu.astype(np.int32) + 50, hu)),
    "-50 HU": in_place(lambda hu: hu.astype(np.int32) - 50),
    "smoother": other_kernel(-1.0),
    "sharper": other_kernel(1.0),
    "1 mm": resliced(1.0),
    "3 mm": resliced(3.0),
    "5 mm": resliced(5.0),
    "streaks": streaked,
    "couch": on_a_couch,
    "head alone": head_alone,
    "shoulders alone": shoulders_alone,
}


def dice(a: Mask, b: Mask) -> float | None:
    """Twice the overlap over the sum; None where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else None


def differing_share(masks: OARMasks, reference: Callable[[OAR], Mask]) -> float:
    """The share of voxels that only one of two draws.

    Of all that either draws, over all OARs.
    """
    pairs = [(masks.mask(oar), reference(oar)) for oar in masks.oars]
    either = sum(int((a | b).sum()) for a, b in pairs)
    return sum(int((a ^ b).sum()) for a, b in pairs) / max(either, 1)


def read_scan(folder: Path) -> Scan:
    """The one CT series of a folder."""
    ct = read_ct_series(check_headers(sorted(path for path in folder.rglob("*.dcm"))))
    return Scan(ct.hu, ct.header.grid)


def table(scan: Scan, model: Model) -> Iterator[str]:
    """Lines of the Markdown table."""
    base = draw(scan, model)
    columns = {}
    for name, change in VARIANTS.items():
        changed = change(scan, base)
        masks = draw(changed.scan, model)
        columns[name] = (masks, changed.reference, differing_share(masks, changed.reference))
    yield "| OAR | " + " | ".join(columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    for oar in OARS:
        cells = [_cell(masks.mask(oar), reference(oar)) for masks, reference, _ in columns.values()]
        yield f"| {oar.name} | " + " | ".join(cells) + " |"
    yield "| voxels that differ | " + " | ".join(f"{share:.2%}" for *_, share in columns.values()) + " |"


def _cell(drawn: Mask, reference: Mask) -> str:
    found = dice(drawn, reference)
    return "empty" if found is None else f"{found:.2f}"


def main() -> None:
    """Print the table for one series."""
    parser = argparse.ArgumentParser(prog="python -m tools.studies.robustness", description=__doc__)
    parser.add_argument("series", type=Path, help="folder of one CT series that shows head and shoulders")
    parser.add_argument("--model", type=Path, default=Path("models/oarlock-hn"), help="folder of a model")
    options = parser.parse_args()
    for line in table(read_scan(options.series), load(read_manifest(options.model), device="cpu")):
        print(line, flush=True)


if __name__ == "__main__":
    main()
