"""Lungs by threshold: found where they are plain, left alone where anything is doubtful."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_export.datasets.plain_lungs import plain_lungs, with_plain_lungs
from model_export.datasets.training_file import CHANNEL, Case, to_codes
from tests.model_export.conftest import made_case

pytestmark = pytest.mark.slow


def chest(*, left_hu: float = -800.0, shift: int = 0, from_slice: int = 0) -> Case:
    """Two ellipsoids of lung with a vessel in one, in a body of water, and a trachea between them; x to the patient's left."""
    shape, spacing = (30, 50, 90), (3.0, 4.0, 4.0)
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    known = ((y - 25) / 24) ** 2 + ((x - 45) / 44) ** 2 < 1
    hu = np.where(known, 20.0, -1000.0)
    for middle, value in ((24 + shift, -800.0), (66 + shift, left_hu)):
        lung = ((y - 25) / 13) ** 2 + ((x - middle) / 14) ** 2 + ((z - from_slice) / 22) ** 2 < 1
        hu = np.where(lung & (z >= from_slice), value, hu)
    hu = np.where((abs(y - 25) < 2) & (abs(x - 24 - shift) < 2) & (z < 8), 40.0, hu)
    hu = np.where((abs(y - 20) < 3) & (abs(x - 45) < 3), -990.0, hu)
    made = made_case()
    return replace(made, ct=to_codes(hu, known), labels=np.zeros((3, *shape), np.uint8), spacing_mm=spacing)


def test_two_plain_lungs_become_labels_with_their_vessels_and_without_the_trachea() -> None:
    case = with_plain_lungs(chest())
    assert [CHANNEL["Lung_L"], CHANNEL["Lung_R"]] == list(case.channels[-2:])
    left, right = (case.labels[index] > 0 for index in (-2, -1))
    assert left[:, :, :45].sum() == right[:, :, 46:].sum() == 0
    assert right[3, 25, 24]  # within the vessel
    assert not (left | right)[:, 20, 45].any()  # the trachea
    assert left.sum() == pytest.approx(right.sum(), rel=0.02)
    assert set(np.unique(case.labels[-1])) == {0, 17 * case.label_full}


@pytest.mark.parametrize(
    "case",
    [chest(left_hu=20.0), chest(shift=14), chest(from_slice=9)],
    ids=["one is fluid", "not on its side", "they end above the foot end"],
)
def test_what_is_doubtful_stays_unlabelled(case: Case) -> None:
    assert plain_lungs(case) is None
    assert with_plain_lungs(case) is case


def test_lungs_that_experts_drew_are_not_touched() -> None:
    drawn = replace(chest(), channels=(CHANNEL["Lung_L"], CHANNEL["Lung_R"], CHANNEL["SpinalCord"]))
    assert with_plain_lungs(drawn) is drawn
