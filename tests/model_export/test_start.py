"""To go on from a shipped model: the network that its file gives back answers as the file does, and can be trained."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_export.network import Network, Norm
from model_export.train import slabs_of_step, train_step
from oarlock.segmentation.manifest import read_manifest
from tests.model_export.conftest import CONFIGS, made_case
from tests.model_export.test_network import trained_looking

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from model_export.config import Config

pytest.importorskip("onnx", reason="model_export needs onnx: install the extra model-export")
pytest.importorskip("onnxruntime")


@pytest.fixture
def shipped(tiny: Config, tmp_path: Path) -> Path:
    from model_export.export import export_model

    folder = tmp_path / "made-hn"
    export_model(trained_looking(tiny), tiny, folder, version="1", facts={"steps": 7, "hours": 0.5}, results={})
    return folder


@pytest.mark.long("training")
def test_the_network_answers_as_the_file_it_came_from(tiny: Config, shipped: Path) -> None:
    from model_export.start import start_from_model

    run = start_from_model(tiny, shipped, [made_case()])
    assert run.origin["start"] == read_manifest(shipped).identity
    ct_hu = torch.from_numpy(np.random.default_rng(2).normal(0, 300, (1, 1, 24, 32, 32)).astype(np.float32))
    with torch.no_grad():
        found, expected = run.average.eval()(ct_hu), trained_looking(tiny).eval()(ct_hu)
    np.testing.assert_allclose(torch.sigmoid(found), torch.sigmoid(expected), atol=1e-4)


def test_what_stands_behind_a_model_adds_up() -> None:
    from model_export.start import all_before

    first = {"steps": 4000, "hours": 1.5}
    second = {"steps": 500, "hours": 0.5, **all_before(first)}
    assert all_before(second) == {"steps_before": 4500, "hours_before": 2.0}
    assert all_before({}) == {"steps_before": 0, "hours_before": 0}


def test_loaded_weights_answer_as_the_file_before_anything_is_measured(tiny: Config, shipped: Path) -> None:
    from model_export.start import load_onnx

    network = Network(tiny.network).eval()
    load_onnx(network, shipped / "model.onnx")
    ct_hu = torch.from_numpy(np.random.default_rng(3).normal(0, 300, (1, 1, 24, 32, 32)).astype(np.float32))
    with torch.no_grad():
        np.testing.assert_allclose(network(ct_hu), trained_looking(tiny).eval()(ct_hu), atol=1e-4)


@pytest.mark.long("training")
def test_every_norm_has_statistics_of_its_own_again(tiny: Config, shipped: Path) -> None:
    """Those that were folded away see features of variance one; a training step then finds them near what it measures."""
    from model_export.start import start_from_model

    run = start_from_model(tiny, shipped, [made_case()])
    folded = [module for name, module in run.network.named_modules() if isinstance(module, Norm) and ".convs.1.norm" in name]
    assert len(folded) == 14
    assert all(bool(norm.running_mean.abs().max() > 0) for norm in folded)
    before = run.network.head.conv.weight.detach().clone()
    assert np.isfinite(train_step(run, slabs_of_step(0, [made_case()], tiny), progress=0.5))
    assert not torch.equal(before, run.network.head.conv.weight)


def test_a_file_that_lacks_a_weight_is_refused_and_the_weight_is_named(tiny: Config, shipped: Path) -> None:
    from dataclasses import replace

    from model_export.start import NotOurs, load_onnx

    deeper = Network(replace(tiny.network, bottom_layers=3))
    with pytest.raises(NotOurs, match=r"does not hold bottom\.layers\.2\.weight"):
        load_onnx(deeper, shipped / "model.onnx")


def test_a_file_of_another_shape_is_refused_and_the_weight_is_named(tiny: Config, shipped: Path) -> None:
    from dataclasses import replace

    from model_export.start import NotOurs, load_onnx

    wider = Network(replace(tiny.network, channels=(8, 5, 6, 6, 7, 7, 8)))
    with pytest.raises(NotOurs, match=r"down\.\d.* does not fit"):
        load_onnx(wider, shipped / "model.onnx")


@pytest.mark.long("training")
def test_a_model_served_anew_has_the_same_weights_and_a_new_self_check(tiny: Config, shipped: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from model_export.anew import serve_anew
    from model_export.boxes.compose import compose
    from model_export.export import run_onnx
    from oarlock.inference.models import load

    before = compose(shipped, [], tmp_path / "anew-hn", version="1")
    straight = replace(tiny, network=replace(tiny.network, same_way_round=False, body_only=False))
    serve_anew(tmp_path / "anew-hn", straight, version="2")
    after = read_manifest(tmp_path / "anew-hn")
    assert (before.version, after.version) == ("1", "2")
    assert after.parts[0].sha256 != before.parts[0].sha256
    load(after, device="cpu", threads=1)  # the file is the manifest's, and answers its self-check
    ct_hu = np.random.default_rng(4).normal(0, 300, (1, 1, 23, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(trained_looking(tiny).eval()(torch.from_numpy(ct_hu)))
    np.testing.assert_allclose(run_onnx(after.parts[0].path, ct_hu), expected, atol=1e-4)


def test_what_stands_behind_the_whole_scan_network_of_several_parts_is_its_own(
    tiny: Config, shipped: Path, tmp_path: Path
) -> None:
    from model_export.boxes.compose import compose
    from model_export.start import start_from_model

    compose(shipped, [], tmp_path / "composed-hn", version="1")
    run = start_from_model(tiny, tmp_path / "composed-hn", [made_case()])
    assert (run.origin["steps_before"], run.origin["hours_before"]) == (7, 0.5)


@pytest.mark.long("training")
def test_a_model_served_anew_answers_with_what_it_is_used_for_and_keeps_the_weights_of_all(tmp_path: Path) -> None:
    """The shipped one: its boxes draw the small organs, which the whole-scan network need not answer."""
    from model_export.anew import serve_anew
    from model_export.config import read_config
    from model_export.start import load_onnx

    folder, config = tmp_path / "anew-hn", read_config(CONFIGS / "hn_4mm_on.toml")
    copytree(Path("models/oarlock-hn"), folder)
    serve_anew(folder, config, version="99")
    before, after = read_manifest(Path("models/oarlock-hn")), read_manifest(folder)
    assert set(after.parts[0].oars) == after.used_of(after.parts[0]) == before.used_of(before.parts[0])
    assert {"Lens_L", "Cochlea_R"}.isdisjoint(oar.name for oar in after.parts[0].oars)
    networks = [Network(config.network) for _ in range(2)]
    for network, manifest in zip(networks, (before, after), strict=True):
        load_onnx(network, manifest.parts[0].path)
    for name, value in networks[0].state_dict().items():
        assert torch.equal(value, networks[1].state_dict()[name]), name
