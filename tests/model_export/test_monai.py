"""MONAI bundles become model folders as far as they are declarative, and nothing of them is run unasked."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from model_export.imports.monai import build_network, import_monai, read_bundle
from model_export.imports.nnunet import Wanted
from model_export.imports.refusals import CannotImport
from oarlock.phantom.patient import write_phantom
from oarlock.segmentation.manifest import read_manifest
from oarlock.segmentation.patches import dense_starts_of
from oarlock.segmentation.zoom import along, centred_matrix
from tests.fixtures import nnunet_results

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Callable

needs_monai = pytest.mark.skipif(find_spec("monai") is None, reason="monai is not installed (extra test)")

NETWORK: dict[str, Any] = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
}
CONFIG: dict[str, Any] = {
    "pixdim": [4.0, 5.0, 6.0],
    "network_def": NETWORK,
    "network": "$@network_def.to('cpu')",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim", "mode": "bilinear"},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": -200,
                "a_max": 300,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 20, 24], "overlap": 0.25, "mode": "gaussian"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred"},
        ],
    },
}
CHANNELS = {"0": "background", "1": "brain", "2": "mandible"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": CHANNELS}}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return folder


def change(folder: Path, to: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "configs" / "inference.json"
    told = json.loads(path.read_text())
    to(told)
    path.write_text(json.dumps(told))


def test_what_the_configuration_says_is_read_without_running_it(bundle: Path) -> None:
    found = read_bundle(bundle)
    assert (found.axes, found.spacing, found.patch, found.step, found.weights) == (
        "RAS",
        (4, 5, 6),
        (16, 20, 24),
        0.75,
        "gaussian",
    )
    assert found.normalisation == {"scheme": "ct", "low": -200, "high": 300, "mean": -200, "std": 500}
    assert found.evaluated == ()


@pytest.mark.parametrize(
    ("to", "named"),
    [
        (lambda told: told["preprocessing"]["transforms"].append({"_target_": "RandAffined"}), "RandAffined"),
        (lambda told: told["preprocessing"]["transforms"].reverse(), "ScaleIntensityRanged, Spacingd, Orientationd"),
        (lambda told: told["postprocessing"]["transforms"].append({"_target_": "Lambdad"}), "the transform Lambdad"),
        (
            lambda told: told["postprocessing"]["transforms"][0].update(softmax=False, sigmoid=True),
            "Activationsd without softmax",
        ),
        (lambda told: told["inferer"].update(_target_="SimpleInferer"), "not a SlidingWindowInferer"),
        (lambda told: told["inferer"].update(padding_mode="reflect"), "padding_mode other than constant"),
        (lambda told: told["inferer"].update(roi_size=[10**6] * 3), "a patch of 1000000"),
        (lambda told: told.update(pixdim=[0.001, 1.0, 1.0]), "a spacing of"),
        (lambda told: told["preprocessing"]["transforms"][4].update(b_max=0), "the bundle bundle: .*division"),
        (lambda told: told["preprocessing"]["transforms"].__setitem__(0, {"_target_": ["LoadImaged"]}), "preprocessing"),
        (lambda told: told.update(pixdim="$[1.0] * 3"), r"\$\[1.0\] \* 3: Python, which is not run here"),
        (lambda told: told.update(preprocessing="$import_my_transforms()"), "preprocessing is not a list"),
    ],
)
def test_anything_else_is_refused_by_its_name(to: Callable[[dict[str, Any]], object], named: str, bundle: Path) -> None:
    change(bundle, to)
    with pytest.raises(CannotImport, match=named):
        read_bundle(bundle)


def test_python_in_the_networks_definition_is_listed_and_not_run(bundle: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    python = f"$__import__('pathlib').Path({str(proof)!r}).touch() or 1"
    change(bundle, lambda told: told["network_def"].update(in_channels=python))
    found = read_bundle(bundle)
    assert found.evaluated == (python,)
    with pytest.raises(CannotImport, match="--yes-evaluate"):
        build_network(found, evaluate=False)
    change(bundle, lambda told: told["network_def"].update(_target_="my.own.Net"))
    assert read_bundle(bundle).evaluated == ("_target_ my.own.Net", python)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["resnet18", "EfficientNetBN", "monai.networks.nets.DenseNet", "torch.hub.load", "os.system"])
def test_a_network_that_could_fetch_its_weights_and_what_is_none_is_not_built_unasked(name: str, bundle: Path) -> None:
    change(bundle, lambda told: told.update(network_def={"_target_": name, "pretrained": True}))
    with pytest.raises(CannotImport, match=f"only with --yes-evaluate: _target_ {name}"):
        build_network(read_bundle(bundle), evaluate=False)


@needs_monai
def test_a_network_that_no_machine_could_hold_is_refused(bundle: Path) -> None:
    change(bundle, lambda told: told["network_def"].update(channels=[10**9, 8]))
    with pytest.raises(CannotImport, match="channels above 2048"):
        build_network(read_bundle(bundle), evaluate=False)


def test_python_that_the_definition_refers_to_is_listed_and_what_cannot_be_followed_is_refused(bundle: Path) -> None:
    more = {"a": "@b#0", "b": ["$1 + @c::d", "@a"], "c": {"d": "$open('x')", "e": "$never"}, "f": {"_target_": "my.own.thing"}}
    change(bundle, lambda told: told.update(more))
    change(bundle, lambda told: told["network_def"].update(in_channels="@a", out_channels="$len([@b, @f])"))
    listed = ["$1 + @c::d", "$open('x')", "$len([@b, @f])", "_target_ my.own.thing"]
    assert [python for python in listed if python not in read_bundle(bundle).evaluated] == []
    assert "$never" not in read_bundle(bundle).evaluated
    for hidden in ("@::strides", "$@##b", "%other.json::net"):
        change(bundle, lambda told, hidden=hidden: told.update(a=hidden))
        with pytest.raises(CannotImport, match="cannot be followed"):
            read_bundle(bundle)


def test_patches_lie_a_fixed_way_apart_and_the_last_is_moved_back() -> None:
    assert dense_starts_of(50, 20, 0.75) == [0, 15, 30]
    assert dense_starts_of(51, 20, 0.75) == [0, 15, 30, 31]
    assert dense_starts_of(20, 20, 0.75) == [0]
    assert dense_starts_of(21, 20, 0.75) == [0, 1]


@needs_monai
def test_an_axis_is_resampled_as_spacingd_resamples_it() -> None:
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    values = np.random.default_rng(2).normal(0, 1, (23, 31, 27)).astype(np.float32)
    of_mm, to_mm = (2.5, 1.1, 0.9), (2.0, 1.6, 1.0)
    image = MetaTensor(torch.from_numpy(values)[None], affine=torch.diag(torch.tensor([*of_mm, 1.0])).double())
    expected = Spacing(to_mm, mode="bilinear")(image)[0].numpy()
    found = values
    for axis, (of, to) in enumerate(zip(of_mm, to_mm, strict=True)):
        found = along(centred_matrix(values.shape[axis], expected.shape[axis], of, to), found, axis)
    assert [round((n - 1) * of / to + 1) for n, of, to in zip(values.shape, of_mm, to_mm, strict=True)] == list(expected.shape)
    assert np.abs(found - expected).max() < 1e-4


@needs_monai
def test_a_bundle_is_imported_and_slides_as_monais_own_inferer(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is untrained: it draws as much of a patient upside down, so the check of the sides would refuse it."""
    monkeypatch.setattr("model_export.imports.monai.see_sides", lambda *_: ())
    torch.manual_seed(3)
    network = build_network(read_bundle(bundle), evaluate=False)
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    write_phantom(tmp_path / "scan", nnunet_results.patient((7.0, 5.5, 5.0), seed=4))
    (tmp_path / "map.toml").write_text('[organs]\nBrain = "brain"\n')
    made = import_monai(bundle, tmp_path / "models" / "unet", Wanted(tmp_path / "map.toml", tmp_path / "scan", part="unet"))
    assert made.left_out == ("mandible",)
    assert made.comparison is not None
    assert made.comparison.drawn > 0.01 * made.comparison.voxels
    assert made.comparison.differing <= 1e-4 * made.comparison.voxels
    part = read_manifest(tmp_path / "models" / "unet").parts[0]
    assert part.input.spacing_mm == (6.0, 5.0, 4.0)
    assert part.patches is not None
    assert (part.patches.like, part.patches.weights) == ("monai", "gaussian")
