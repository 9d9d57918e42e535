"""How well a checkpoint draws the tuning split.

Per OAR, left and right apart, on the data's own grid.

The reference is OpenKBP's drawing, or the oncologist's on the matched scans, where the radiographer's drawing of the same scan
is scored beside it. Only voxels whose CT is known, in slices where the organ is labelled, are compared.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from model_export.augment import F32, AugmentConfig
from model_export.datasets.training_file import CHANNEL, Case
from model_export.network import Network
from model_export.prepare import known_box
from model_export.progress import Kept, shown
from model_export.sampling import GridConfig, between_slices, no_deformation, sample_slab
from model_export.served import Served
from oarlock.organs.catalogue import BY_NAME, OARS, other_side
from oarlock.qa.lattice import Lattice, rounded_tolerance_mm
from oarlock.qa.surface_dsc import surface_distances
from oarlock.segmentation.rivals import rival_channels, undisputed

THRESHOLD: Final = 0.5
CANDIDATES: Final = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
CLEARLY_BETTER: Final = 0.005
ENOUGH: Final = 10
SLAB_SLICES: Final = 48
ALLOWANCE_MM: Final = 1e-6
ONCOLOGIST, RADIOGRAPHER = 0, 1

Mask = npt.NDArray[np.bool_]
SurfaceScore = Callable[[Mask, Mask, tuple[float, float, float], float], float | None]


@dataclass(frozen=True, slots=True)
class OrganResult:
    """One organ in one scan.

    `dsc` is None where the reference holds nothing in the known CT; volumes in cm³.
    """

    case: str
    source: str
    oar: str
    dsc: float | None
    human_dsc: float | None
    predicted_cm3: float
    reference_cm3: float
    surface_dsc: float | None = None
    human_surface_dsc: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the table."""

    source: str
    oar: str
    cases: int
    mean: float
    sd: float
    worst: float
    worst_case: str
    human_mean: float | None
    surface_mean: float | None
    human_surface_mean: float | None


def evaluate(
    network: Network,
    grid: GridConfig,
    cases: Sequence[Case],
    *,
    bfloat16: bool = True,
    surface_score: SurfaceScore | None = None,
    thresholds: Mapping[str, float] = MappingProxyType({}),
    kept: Kept | None = None,
) -> list[OrganResult]:
    """Every labelled organ of every case.

    `thresholds` by OAR, else 0.5. Cases that are `kept` are not drawn again.
    """
    served, kept = Served(network).eval(), kept or Kept()

    def judge(case: Case) -> list[dict[str, Any]]:
        on_labels = to_label_grid(predict_case(served, case, grid, bfloat16=bfloat16), case, grid)
        return [asdict(result) for result in compare_case(case, on_labels, surface_score, thresholds)]

    rows = [row for case in shown(cases, "evaluate") for row in kept.get(case.name, partial(judge, case))]
    return [OrganResult(**row) for row in rows]


def predict_case(served: Served, case: Case, grid: GridConfig, *, bfloat16: bool) -> Tensor:
    """Probabilities on the network's grid, centred on the case.

    (labelled channels, Z, Y · upscale, X · upscale).
    """
    slices = case_slices(case, grid)
    middle_mm = case.ct.shape[0] * case.spacing_mm[0] / 2
    rng = np.random.default_rng(0)  # asked, but nothing is random without augmentation
    slab = sample_slab(
        case, grid, slices=slices, middle_mm=middle_mm, deformation=no_deformation(), augment=AugmentConfig(), rng=rng
    )
    found = []
    for first in range(0, slices, SLAB_SLICES):
        part = slab.ct_hu[first : min(first + SLAB_SLICES, slices) + grid.context_slices - 1]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            found.append(served(part[None, None])[0, list(case.channels)])
    return torch.cat(found, dim=1)


def case_slices(case: Case, grid: GridConfig) -> int:
    """Slices of the network's grid that cover a case."""
    return int(np.ceil(case.ct.shape[0] * case.spacing_mm[0] / grid.spacing_mm[0]))


def to_label_grid(probabilities: Tensor, case: Case, grid: GridConfig) -> F32:
    """Probabilities at the voxels of the case's labels.

    From those on the network's grid, (channels, z, y, x).
    """
    _, slices, rows, columns = case.labels.shape
    z_mm, y_mm, x_mm = (
        (np.arange(count) + 0.5) * spacing - middle
        for count, spacing, middle in zip(
            (slices, rows, columns),
            (case.spacing_mm[0], case.spacing_mm[1] / case.label_factor, case.spacing_mm[2] / case.label_factor),
            (case.ct.shape[0] * case.spacing_mm[0] / 2, *case.body_centre_mm),
            strict=True,
        )
    )
    positions = np.clip(z_mm / grid.spacing_mm[0] + (probabilities.shape[1] - 1) / 2, 0, probabilities.shape[1] - 1)
    at_slices = between_slices(probabilities.transpose(0, 1), positions.astype(np.float32))  # (z, C, Y, X)
    y, x = np.meshgrid(2 * y_mm / (grid.size * grid.spacing_mm[1]), 2 * x_mm / (grid.size * grid.spacing_mm[2]), indexing="ij")
    where = torch.from_numpy(np.stack([x, y], axis=-1).astype(np.float32))[None].expand(slices, -1, -1, -1)
    found = functional.grid_sample(at_slices, where, align_corners=False)
    return cast("F32", found.transpose(0, 1).numpy())


def choose_thresholds(
    network: Network, grid: GridConfig, cases: Sequence[Case], *, bfloat16: bool = True, kept: Kept | None = None
) -> dict[str, float]:
    """The threshold with the highest mean volumetric DSC, by OAR.

    On some cases: training cases, never those that judge.

    An OAR that at least `ENOUGH` cases of OpenKBP show is judged on those, for the matched ones are few; any other on all. A
    threshold other than 0.5 is taken only where it is better by `CLEARLY_BETTER`. Both sides of an organ share one: the network
    has been shown as many mirrored scans as others, and a voxel that both sides claim goes to the stronger claim.
    """
    served, kept = Served(network).eval(), kept or Kept()

    def judge(case: Case) -> dict[str, list[float | None]]:
        on_labels = to_label_grid(predict_case(served, case, grid, bfloat16=bfloat16), case, grid)
        found = [list(compare_case(case, on_labels, None, dict.fromkeys(CHANNEL, threshold))) for threshold in CANDIDATES]
        return {results[0].oar: [result.dsc for result in results] for results in zip(*found, strict=True)}

    scores: dict[str, dict[str, list[list[float]]]] = {}
    for case in shown(cases, "calibrate"):
        for name, by_threshold in kept.get(case.name, partial(judge, case)).items():
            if by_threshold[0] is not None:
                scores.setdefault(_pair(name), {}).setdefault(case.source, []).append(by_threshold)
    chosen = {pair: _best_threshold(by_source) for pair, by_source in scores.items()}
    return {name: chosen[_pair(name)] for name in BY_NAME if _pair(name) in chosen}


def _best_threshold(by_source: Mapping[str, list[list[float]]]) -> float:
    """From the scores of one OAR at each of the candidates, by the source of the cases."""
    openkbp = by_source.get("openkbp", [])
    rows = openkbp if len(openkbp) >= ENOUGH else [row for rows in by_source.values() for row in rows]
    means = np.mean(rows, axis=0)
    best = int(np.argmax(means))
    return CANDIDATES[best] if means[best] > means[CANDIDATES.index(THRESHOLD)] + CLEARLY_BETTER else THRESHOLD


def _pair(name: str) -> str:
    """One name for both sides of an organ."""
    return min(name, other_side(BY_NAME[name]).name)


def compare_case(
    case: Case,
    probabilities: F32,
    surface_score: SurfaceScore | None = None,
    thresholds: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[OrganResult]:
    """Scores of the labelled organs of one case."""
    factor = case.label_factor
    known = case.known.repeat(factor, axis=1).repeat(factor, axis=2)
    spacing = (case.spacing_mm[0], case.spacing_mm[1] / factor, case.spacing_mm[2] / factor)
    fractions = [case.fraction_of_label(rater) for rater in (ONCOLOGIST, RADIOGRAPHER)]
    oars = [OARS[channel] for channel in case.channels]
    limits, rivals = [thresholds.get(oar.name, THRESHOLD) for oar in oars], rival_channels(oars)
    for index, channel in enumerate(case.channels):
        first, last = (max(slice_, 0) for slice_ in case.labelled_slices[index])
        inside = slice(first, last + 1)
        masks = [fraction[case.labels[index, inside]] >= 0.5 for fraction in fractions]
        reference, human = (mask & known[inside] for mask in masks)
        drawn = undisputed(index, probabilities[:, inside].__getitem__, rivals[index], limits)
        predicted = (drawn > limits[index]) & known[inside]
        matched = case.source == "matched"
        score = surface_score if matched else None
        tolerance_mm = OARS[channel].tolerance_mm
        voxel_cm3 = float(np.prod(spacing)) / 1000.0
        yield OrganResult(
            case=case.name,
            source=case.source,
            oar=OARS[channel].name,
            dsc=volumetric_dsc(predicted, reference),
            human_dsc=volumetric_dsc(human, reference) if matched else None,
            predicted_cm3=round(float(predicted.sum()) * voxel_cm3, 3),
            reference_cm3=round(float(reference.sum()) * voxel_cm3, 3),
            surface_dsc=score(predicted, reference, spacing, tolerance_mm) if score else None,
            human_surface_dsc=score(human, reference, spacing, tolerance_mm) if score else None,
        )


def volumetric_dsc(predicted: Mask, reference: Mask) -> float | None:
    """Twice the overlap over the sum of the volumes.

    None without a reference.
    """
    if not reference.any():
        return None
    return float(2.0 * (predicted & reference).sum() / (predicted.sum() + reference.sum()))


def surface_dsc(predicted: Mask, reference: Mask, spacing_mm: tuple[float, float, float], tolerance_mm: float) -> float | None:
    """Surface DSC at the tolerance, rounded as the paper says.

    None if a mask is empty in the reference, 0 if ours is.
    """
    if not reference.any():
        return None
    if not predicted.any():
        return 0.0
    box = known_box(predicted | reference)
    lattice = Lattice.upright(box[0].stop - box[0].start, spacing_mm)
    rounded_mm = rounded_tolerance_mm(tolerance_mm, lattice)
    distances = surface_distances(predicted[box], reference[box], lattice=lattice)
    return float(distances.surface_dsc((tolerance_mm if rounded_mm is None else rounded_mm) + ALLOWANCE_MM))


def summarise(results: Sequence[OrganResult]) -> list[Summary]:
    """Mean, spread and worst case of each OAR in each source.

    In the order of the house's table.
    """
    lines = []
    for source in ("openkbp", "matched"):
        for name in CHANNEL:
            found = [r for r in results if r.oar == name and r.source == source and r.dsc is not None]
            if found:
                lines.append(_summary(found))
    return lines


def _summary(found: Sequence[OrganResult]) -> Summary:
    scores = [r.dsc for r in found if r.dsc is not None]
    worst = min(found, key=lambda r: r.dsc or 0.0)
    return Summary(
        source=found[0].source,
        oar=found[0].oar,
        cases=len(scores),
        mean=float(np.mean(scores)),
        sd=float(np.std(scores)),
        worst=min(scores),
        worst_case=worst.case,
        human_mean=_mean([r.human_dsc for r in found]),
        surface_mean=_mean([r.surface_dsc for r in found]),
        human_surface_mean=_mean([r.human_surface_dsc for r in found]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def to_table(lines: Sequence[Summary]) -> str:
    """The summary as a Markdown table."""
    head = "| scans | OAR | n | DSC mean | SD | worst | in | radiographer | surface DSC | radiographer |"
    rows = [head, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for line in lines:
        optional = [_number(value) for value in (line.human_mean, line.surface_mean, line.human_surface_mean)]
        rows.append(
            f"| {line.source} | {line.oar} | {line.cases} | {line.mean:.3f} | {line.sd:.3f} | {line.worst:.3f} | "
            f"{line.worst_case} | {' | '.join(optional)} |"
        )
    return "\n".join(rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def write_results(path: Path, results: Sequence[OrganResult], facts: dict[str, float | int | str]) -> None:
    """All rows and their summary as JSON."""
    document = {
        "facts": facts,
        "summary": [asdict(line) for line in summarise(results)],
        "organs": [asdict(result) for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
