"""Evaluation: the way back to the data's grid, and the scores."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_export.augment import AugmentConfig
from model_export.datasets.training_file import CHANNEL
from model_export.evaluate import (
    case_slices,
    choose_thresholds,
    compare_case,
    evaluate,
    summarise,
    to_label_grid,
    to_table,
    volumetric_dsc,
    write_results,
)
from model_export.sampling import no_deformation, sample_slab
from tests.model_export.conftest import made_case
from tests.model_export.test_network import trained_looking

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.config import Config


def test_labels_survive_the_way_to_the_network_and_back(tiny: Config) -> None:
    """What a perfect network would give scores nearly 1: the two resamplings are each other's inverse."""
    config = dataclasses.replace(tiny.grid, spacing_mm=(2.5, 8.0, 8.0), size=48)
    case = made_case()
    middle_mm = 31 * 2.3 / 2
    rng = np.random.default_rng(0)
    slices = case_slices(case, config)
    slab = sample_slab(
        case, config, slices=slices, middle_mm=middle_mm, deformation=no_deformation(), augment=AugmentConfig(), rng=rng
    )
    perfect = torch.zeros(3, case_slices(case, config), 96, 96)
    rows, columns = (slice(2 * span.start, 2 * span.stop) for span in slab.window)
    perfect[:, :, rows, columns] = slab.target
    results = list(compare_case(case, to_label_grid(perfect, case, config)))
    assert [result.oar for result in results] == ["Parotid_L", "Parotid_R", "SpinalCord"]
    assert min(result.dsc or 0 for result in results) > 0.93


def test_volumetric_dsc_by_hand() -> None:
    a, b = np.array([True, True, False]), np.array([False, True, True])
    assert volumetric_dsc(a, b) == 0.5
    assert volumetric_dsc(a, np.zeros(3, np.bool_)) is None


def test_raters_are_told_apart() -> None:
    case = dataclasses.replace(made_case(channels=(CHANNEL["Brain"],)), source="matched")
    labels = case.labels.copy()
    labels[labels > 0] = 16  # the oncologist's alone
    (result,) = compare_case(dataclasses.replace(case, labels=labels), np.zeros(labels.shape, np.float32))
    assert result.dsc == 0
    assert result.human_dsc == 0
    assert result.reference_cm3 == pytest.approx(5 * 6 * 16 * 2.3 * 7.9 * 8.3 / 1000, rel=1e-3)


def test_a_threshold_belongs_to_its_organ() -> None:
    case = made_case()
    probabilities = np.where(case.labels > 0, 0.35, 0.1).astype(np.float32)
    found = {result.oar: result.dsc for result in compare_case(case, probabilities, thresholds={"Parotid_R": 0.3})}
    assert found == {"Parotid_L": 0.0, "Parotid_R": 1.0, "SpinalCord": 0.0}


def test_thresholds_are_chosen_where_they_help(tiny: Config) -> None:
    network = trained_looking(tiny)
    with torch.no_grad():  # a network that says 0.31 everywhere draws everything at 0.3 or less and nothing above
        network.head.conv.weight.zero_()
        network.head.conv.bias.fill_(-0.8)
    chosen = choose_thresholds(network, tiny.grid, [made_case()], bfloat16=False)
    assert chosen == dict.fromkeys(("Parotid_L", "Parotid_R", "SpinalCord"), 0.05)


def test_an_untrained_network_is_scored_and_tabulated(tiny: Config, tmp_path: Path) -> None:
    results = evaluate(trained_looking(tiny), tiny.grid, [made_case()], bfloat16=False)
    lines = summarise(results)
    assert [line.oar for line in lines] == ["Parotid_L", "Parotid_R", "SpinalCord"]
    assert "Parotid_L" in to_table(lines)
    write_results(tmp_path / "evaluation-000001.json", results, {"step": 1})
    assert json.loads((tmp_path / "evaluation-000001.json").read_text())["facts"]["step"] == 1
