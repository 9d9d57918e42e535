"""Glands are cut at the skin, where the skin is stated and not found on a CT: each limit met exactly and passed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Box, OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.within_skin import within_skin

EVERYWHERE = (slice(None), slice(None), slice(None))
PAROTID = BY_NAME["Parotid_L"]


@dataclass
class Stated:
    """Surroundings that are told which voxels lie outside of the patient, instead of finding them on a CT."""

    grid: Grid
    out: np.ndarray

    def outside(self, box: Box, *, under_skin: bool) -> np.ndarray:
        return self.out[box] if under_skin else np.ones_like(self.out[box])


def cut(out: np.ndarray, spacing_mm: tuple[float, float, float], **drawn: np.ndarray) -> tuple[OARMasks, list[str]]:
    origins = np.outer(np.arange(len(out)) * spacing_mm[0], [0, 0, 1.0])
    _, rows, columns = out.shape
    around: Any = Stated(Grid(rows, columns, origins, np.eye(3)[0], np.eye(3)[1], *spacing_mm[1:]), out)
    masks = OARMasks.empty([BY_NAME[name] for name in drawn], out.shape)
    for name, mask in drawn.items():
        masks.put(BY_NAME[name], EVERYWHERE, mask)
    return masks, [notice.detail for notice in within_skin(masks, around)]


COARSE_MM = (20.0, 20.0, 20.0)
"""No voxel has a neighbour within 6 mm, and each has 8 ml."""


@pytest.mark.parametrize(
    ("outside", "voxels", "is_cut"),
    [(1, 100, False), (2, 150, True), (60, 100, True), (61, 100, False), (100, 100, False)],
    ids=["a hundredth", "more", "three fifths", "more than that", "all"],
)
def test_a_gland_is_cut_from_a_hundredth_to_three_fifths_of_it(outside: int, voxels: int, is_cut: bool) -> None:
    out, mask = np.zeros((2, 3, 150), np.bool_), np.zeros((2, 3, 150), np.bool_)
    out[1, 1, :outside] = mask[1, 1, :voxels] = True
    masks, said = cut(out, COARSE_MM, Parotid_L=mask)
    assert masks.mask(PAROTID).sum() == voxels - is_cut * outside
    where = "that the model drew in air, or in a pad, bolus, mask, tube or hand on the skin were taken off"
    assert said == [f"Parotid_L: {8 * outside:.2f} ml {where}."] * is_cut


def test_only_glands_under_the_skin_are_cut_and_each_that_reaches_beyond_it() -> None:
    """The first gland ends at the skin, where the others and what is no such gland do not."""
    out, mask = np.zeros((3, 4, 5), np.bool_), np.ones((3, 4, 5), np.bool_)
    out[:, :1] = True
    glands = ("Parotid_R", "Glnd_Submand_L", "Glnd_Submand_R")
    others = ("Brain", "Eye_L", "Glnd_Lacrimal_L")
    drawn = {**dict.fromkeys(others, mask), "Lens_L": mask & False, "Parotid_L": mask & ~out, **dict.fromkeys(glands, mask)}
    masks, said = cut(out, COARSE_MM, **drawn)
    assert [masks.mask(BY_NAME[name]).sum() for name in drawn] == [60] * 3 + [0] + [45] * 4
    assert [sentence.split(":")[0] for sentence in said] == list(glands)


def test_the_cut_goes_where_most_voxels_within_six_millimetres_say() -> None:
    """As counted in windows of 9, 5 and 7 voxels, which are the odd numbers next to 6 mm of each spacing."""
    rng = np.random.default_rng(4)
    out = rng.random((11, 12, 13)) < np.linspace(0.1, 0.9, 13)
    mask = np.zeros(out.shape, np.bool_)
    mask[1:, 2:, 1:-1] = True
    inside = (slice(1, None), slice(2, None), slice(1, -1))
    padded = np.pad(out[inside], [(4, 4), (2, 2), (3, 3)], mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 5, 7)).sum(axis=(3, 4, 5))
    expected = np.zeros(out.shape, np.bool_)
    expected[inside] = ~(out[inside] | (2 * windows > 9 * 5 * 7))
    masks, _ = cut(out, (0.75, 1.2, 1.0), Glnd_Submand_R=mask)
    assert np.array_equal(masks.mask(BY_NAME["Glnd_Submand_R"]), expected)
