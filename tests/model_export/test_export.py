"""The exported file: what ONNX Runtime gives is what torch gives, and the manifest describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_export.served import Served
from oarlock.organs.catalogue import OARS
from oarlock.segmentation.manifest import check_hash, read_manifest, self_check_input
from tests.model_export.test_network import trained_looking

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.config import Config

pytest.importorskip("onnx", reason="model_export needs onnx: install the extra model-export")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from model_export.export import export_model

    folder = tmp_path_factory.mktemp("export") / "made-hn"
    agreement = export_model(trained_looking(tiny), tiny, folder, version="1.2.3", facts={"steps": 7}, results={})
    assert agreement.probability < 1e-4
    assert agreement.mask_share < 1e-3
    return folder


@pytest.mark.long("training")
def test_the_file_takes_any_batch_and_any_number_of_slices(tiny: Config, exported: Path) -> None:
    from model_export.export import run_onnx

    network = trained_looking(tiny)
    for batch, slices in ((1, 21), (3, 26)):
        ct_hu = np.random.default_rng(slices).normal(0, 300, (batch, 1, slices, 32, 32)).astype(np.float32)
        found = run_onnx(exported / "model.onnx", ct_hu)
        with torch.no_grad():
            expected = Served(network)(torch.from_numpy(ct_hu)).numpy()
        assert found.shape == (batch, 21, slices - 20, 64, 64)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_manifest_says_what_the_file_needs(tiny: Config, exported: Path) -> None:
    manifest = read_manifest(exported)
    check_hash(manifest)
    assert (manifest.name, manifest.version) == ("made-hn", "1.2.3")
    assert manifest.parts[0].input.spacing_mm == tiny.grid.spacing_mm
    assert manifest.parts[0].input.size_yx == (32, 32)
    assert manifest.parts[0].input.context_slices == 21
    assert manifest.parts[0].output.upscale == 2
    assert manifest.oars == OARS
    assert manifest.training["steps"] == 7


def test_the_self_check_knows_its_own_file(exported: Path) -> None:
    from model_export.export import run_onnx

    check = read_manifest(exported).parts[0].self_check
    means = run_onnx(exported / "model.onnx", self_check_input(check.slices, check.size_yx)).mean(axis=(0, 2, 3, 4))
    assert means == pytest.approx(check.expected_means, abs=check.tolerance)


def test_the_file_names_no_folder_of_the_machine_that_wrote_it(exported: Path) -> None:
    content = (exported / "model.onnx").read_bytes()
    assert b"model_export" not in content
    assert str(exported).encode() not in content


def test_a_card_says_whether_what_ships_has_seen_the_scans_that_judge(tmp_path: Path) -> None:
    from model_export.export import Seen, to_card

    fold, all_scans = (to_card(tmp_path, "1", {"steps": 7} | more, {}, Seen()) for more in ({}, {"learnt_from_judges": True}))
    assert "They were never trained on." in fold
    assert "what ships went on from it and learnt from all scans" in all_scans
    assert "learnt_from_judges" not in all_scans
