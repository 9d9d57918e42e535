"""A second round of labels: a network that draws a ball of known size at a known place says where labels go."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model_export.boxes.config import BoxRun, read_box_run
from model_export.boxes.data import EXPERT, TRANSFERRED, BoxCase, BoxLabel
from model_export.boxes.relabel import LOOKS, relabel
from model_export.datasets.training_file import to_codes

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "model_export" / "configs"
SPACING = (2.5, 4.0, 4.0)
SHAPE = (64, 60, 64)
MIDDLE_MM = np.array(SHAPE) * SPACING / 2
EYE, LENS = np.array([0.0, -10.0, 32.0]), np.array([0.0, -20.0, 32.0])
"""Middles (z, y, x) in mm from that of the box."""


@pytest.fixture(scope="module")
def orbits() -> BoxRun:
    return read_box_run(CONFIGS / "orbits.toml")


@pytest.fixture(scope="module")
def jaw() -> BoxRun:
    return read_box_run(CONFIGS / "jaw.toml")


def ball_label(organ: str, middle: np.ndarray, radius_mm: float, source: str = TRANSFERRED) -> BoxLabel:
    steps = np.array(SPACING) / (1, 4, 4)
    first = np.floor((MIDDLE_MM + middle - radius_mm) / steps).astype(int) - 2
    count = np.ceil(2 * radius_mm / steps).astype(int) + 4
    axes = [(np.arange(n) + f + 0.5) * s - m for n, f, s, m in zip(count, first, steps, MIDDLE_MM + middle, strict=True)]
    shares = np.where(sum(axis**2 for axis in np.ix_(*axes)) <= radius_mm**2, 255, 0).astype(np.uint8)
    return BoxLabel(organ, shares, (int(first[0]), int(first[1]), int(first[2])), 4, source, (0, SHAPE[0] - 1))


def middle_of(label: BoxLabel) -> np.ndarray:
    """(z, y, x) in mm from the box's middle."""
    mass = np.argwhere(label.shares > 0), label.shares[label.shares > 0]
    index = np.average(mass[0], axis=0, weights=mass[1]) + label.first + 0.5
    return np.asarray(index * np.array(SPACING) / (1, label.factor, label.factor) - MIDDLE_MM)


def case_with(labels: Sequence[BoxLabel], name: str = "made") -> BoxCase:
    ct = to_codes(np.full(SHAPE, 20.0, np.float32), np.ones(SHAPE, np.bool_))
    z, y, x = MIDDLE_MM
    return BoxCase(name, "", "train", SPACING, ct, (float(z), float(y), float(x)), tuple(labels))


def drawer(run: BoxRun, organ: str, middle: np.ndarray, radius_mm: float, inside: float = 0.95) -> Callable[[Tensor], Tensor]:
    """A network that draws a ball as an organ, and nothing else."""

    def drawn(hu: Tensor) -> Tensor:
        axes = [torch.from_numpy(axis) for axis in run.box.positions_mm(fine=True)]
        z, y, x = torch.meshgrid(*(axis - at for axis, at in zip(axes, middle, strict=True)), indexing="ij")
        found = torch.zeros(1, len(run.box.drawn_organs), *z.shape)
        found[0, run.box.drawn_organs.index(organ)] = (z**2 + y**2 + x**2 <= radius_mm**2).float() * inside
        return found

    return drawn


def test_a_transferred_lens_moves_as_its_eye_is_drawn_beside_its_label(orbits: BoxRun) -> None:
    move = np.array([1.5, -2.2, 3.1])
    case = case_with([ball_label("Eye_L", EYE, 12), ball_label("Lens_L", LENS, 5), ball_label("Lens_R", -LENS, 5, EXPERT)])
    found = relabel([case], orbits.box, drawer(orbits, "Eye_L", EYE + move, 12), moved=["Eye_L", "Lens_L"])
    (after,) = found.cases
    assert middle_of(after.by_organ["Eye_L"]) == pytest.approx(EYE + move, abs=0.3)
    shift = middle_of(after.by_organ["Lens_L"]) - middle_of(case.by_organ["Lens_L"])
    assert shift == pytest.approx(move, abs=0.3)
    assert after.by_organ["Lens_R"] is case.by_organ["Lens_R"]  # an expert's stays
    assert found.told == ["made: Eye_L moved by 4.1 mm"]


@pytest.mark.parametrize(("away_mm", "radius_mm"), [(12.0, 12.0), (0.0, 8.0)], ids=["far", "small"])
def test_a_scan_is_left_out_where_the_eye_is_drawn_far_from_its_label_or_far_too_small(
    away_mm: float, radius_mm: float, orbits: BoxRun
) -> None:
    case = case_with([ball_label("Eye_L", EYE, 12)])
    draws = drawer(orbits, "Eye_L", EYE + np.array([0, away_mm, 0]), radius_mm)
    assert relabel([case], orbits.box, draws, moved=["Eye_L"]).cases == []


def test_a_gland_that_the_network_is_sure_of_becomes_a_label_of_its_size_and_place(jaw: BoxRun) -> None:
    place = np.array([-30.0, 10.0, 30.0])
    found = relabel([case_with([])], jaw.box, drawer(jaw, "Glnd_Submand_L", place, 12.7), added=["Glnd_Submand_L"])
    label = found.cases[0].by_organ["Glnd_Submand_L"]
    assert label.source == TRANSFERRED
    assert middle_of(label) == pytest.approx(place, abs=0.5)
    assert label.shares.sum() / 255 * 2.5e-3 == pytest.approx(4 / 3 * np.pi * 1.27**3, rel=0.05)  # ml
    assert "Glnd_Submand_R" not in found.cases[0].by_organ


@pytest.mark.parametrize(
    ("middle", "radius_mm", "inside"),
    [((-30.0, 10.0, 30.0), 12.7, 0.7), ((-30.0, 10.0, 30.0), 7.0, 0.95), ((-30.0, 10.0, 84.0), 12.7, 0.95)],
    ids=["not sure", "too small", "cut by the box"],
)
def test_a_doubtful_gland_becomes_no_label(
    middle: tuple[float, float, float], radius_mm: float, inside: float, jaw: BoxRun
) -> None:
    draws = drawer(jaw, "Glnd_Submand_L", np.array(middle), radius_mm, inside)
    assert relabel([case_with([])], jaw.box, draws, added=["Glnd_Submand_L"]).cases[0].labels == ()


def test_several_looks_draw_an_organ_where_it_is_seen_in_each(orbits: BoxRun) -> None:
    """A network that draws what is dense draws it at another place of a box that is laid elsewhere."""
    hu = np.full(SHAPE, 20.0, np.float32)
    z, y, x = (int((at + off) / step) for at, off, step in zip(MIDDLE_MM, EYE, SPACING, strict=True))
    hu[z - 4 : z + 5, y - 2 : y + 3, x - 2 : x + 3] = 300.0
    middle = np.array([z + 0.5, y + 0.5, x + 0.5]) * SPACING - MIDDLE_MM
    case = replace(case_with([ball_label("Eye_L", middle, 12)]), ct=to_codes(hu, np.ones(SHAPE, np.bool_)))

    def dense(shown: Tensor) -> Tensor:
        fine = (shown > 160).float().repeat_interleave(4, -1).repeat_interleave(4, -2)
        return fine.repeat(1, len(orbits.box.drawn_organs), 1, 1, 1)

    for looks in (LOOKS[:1], [(0, 0, 0), (2, 4, -4)]):
        (found,) = relabel([case], orbits.box, dense, moved=["Eye_L"], looks=looks).cases
        assert middle_of(found.by_organ["Eye_L"]) == pytest.approx(middle, abs=0.1)
