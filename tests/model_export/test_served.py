"""Serving: the two sides of the body are treated alike, and the half-size twin says nearly the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_export.sampling import MIRRORED
from model_export.served import Served
from oarlock.segmentation.manifest import check_hash, read_manifest
from tests.model_export.test_network import trained_looking

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.config import Config


def test_a_mirrored_scan_gets_the_mirrored_answer(tiny: Config) -> None:
    served = Served(trained_looking(tiny)).eval()
    ct_hu = torch.from_numpy(np.random.default_rng(0).normal(0, 300, (1, 1, 23, 32, 32)).astype(np.float32))
    with torch.no_grad():
        straight, turned = served(ct_hu), served(ct_hu.flip(-1))
    np.testing.assert_allclose(turned.flip(-1)[:, list(MIRRORED)], straight, atol=1e-6)
    served.both_sides = False
    with torch.no_grad():
        one_sided = served(ct_hu)
    assert not np.allclose(served(ct_hu.flip(-1)).detach().flip(-1)[:, list(MIRRORED)], one_sided, atol=1e-3)


def test_both_sides_are_the_mean_of_the_two_views(tiny: Config) -> None:
    network = trained_looking(tiny)
    ct_hu = torch.from_numpy(np.random.default_rng(1).normal(0, 300, (2, 1, 22, 32, 32)).astype(np.float32))
    with torch.no_grad():
        views = torch.sigmoid(network(ct_hu)), torch.sigmoid(network(ct_hu.flip(-1))).flip(-1)[:, list(MIRRORED)]
        found = Served(network).eval()(ct_hu)
    np.testing.assert_allclose(found, (views[0] + views[1]) / 2, atol=1e-6)


@pytest.mark.long("training")
def test_the_half_size_twin_is_a_model_of_its_own(tiny: Config, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="model_export needs onnx: install the extra model-export")
    from model_export.export import export_model
    from model_export.halve import halve

    source, twin = tmp_path / "made-hn", tmp_path / "made-hn-half"
    wider = replace(tiny, network=replace(tiny.network, bottom_width=256))
    export_model(trained_looking(wider), wider, source, version="1.2.3", facts={}, results={})
    agreement = halve(source, twin)
    manifest = read_manifest(twin)
    check_hash(manifest)
    assert (manifest.name, manifest.version) == ("made-hn-half", "1.2.3")
    assert 0 < agreement.probability < 0.02
    assert (twin / "model.onnx").stat().st_size < 0.75 * (source / "model.onnx").stat().st_size
