"""Two models on the same scans: paired differences with their interval."""

from pathlib import Path

import numpy as np
import pytest

from model_export.compare import Pair, compare_models, differences, to_table
from oarlock.inference.models import load
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import head_and_neck, write_phantom
from oarlock.segmentation.segment import Model
from tests.worker.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

BRAIN, JAW = BY_NAME["Brain"], BY_NAME["Bone_Mandible"]


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt 3, and t(2) at 97.5 % is 4.3027."""
    pairs = [Pair(str(n), BRAIN, (0.5, 0.4), (0.5 + n / 10, 0.4)) for n in (1, 2, 3)]
    found = differences(pairs, 0)[BRAIN]
    assert (found.scans, found.first, found.second, found.mean) == pytest.approx((3, 0.5, 0.7, 0.2))
    assert found.interval == pytest.approx((0.2 - 4.3027 * 0.1 / np.sqrt(3), 0.2 + 4.3027 * 0.1 / np.sqrt(3)), abs=1e-4)
    assert differences(pairs, 1)[BRAIN].interval == (0.0, 0.0)
    assert differences([Pair("a", JAW, (0.5, 0.5), (0.7, 0.5))], 0)[JAW].interval is None


def test_three_observers_of_one_scan_are_one_scan() -> None:
    """The scans differ by 0.2, the mean of 0.1, 0.2 and 0.3, and by 0.4; t(1) at 97.5 % is 12.7062."""
    pairs = [Pair("a", BRAIN, (0.5, 0.0), (0.5 + n / 10, 0.0)) for n in (1, 2, 3)] + [Pair("b", BRAIN, (0.5, 0.0), (0.9, 0.0))]
    found = differences(pairs, 0)[BRAIN]
    assert (found.scans, found.mean) == pytest.approx((2, 0.3))
    reach = 12.7062 * np.std([0.2, 0.4], ddof=1) / np.sqrt(2)
    assert found.interval == pytest.approx((0.3 - reach, 0.3 + reach), abs=1e-4)


def test_both_models_draw_each_scan_and_an_organ_that_one_leaves_out_scores_0(tmp_path: Path) -> None:
    manifest = write_tiny_model(tmp_path / "tiny")
    model = load(manifest, device="cpu", threads=1)
    silent = Model(manifest, {"model": lambda hu: np.zeros_like(model.predictors["model"](hu))}, "cpu")
    for seed in (1, 2):
        phantom = head_and_neck(shape=(30, 60, 64), spacing_mm=(9.0, 7.0, 7.0), seed=seed)
        write_phantom(tmp_path / "scans" / str(seed), phantom, seed=str(seed))
    (tmp_path / "scans" / "empty").mkdir()
    pairs = list(compare_models(silent, model, tmp_path / "scans"))
    assert [(pair.scan, pair.oar) for pair in pairs] == [("1", BRAIN), ("1", JAW), ("2", BRAIN), ("2", JAW)]
    assert all(pair.first == (0.0, 0.0) for pair in pairs)
    assert all(pair.second[0] > 0.05 for pair in pairs)
    table = to_table(pairs).splitlines()
    assert len(table) == 2 + 4
    assert table[2].startswith("| Brain | volumetric DSC | 2 | 0.000 |")
