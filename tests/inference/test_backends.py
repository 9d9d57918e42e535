"""Backends are used only where they are there and every organ is drawn as 32-bit arithmetic draws it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from oarlock.geometry.masks import OARMasks
from oarlock.inference import backends
from oarlock.inference.backends import BACKENDS, LEAST_DICE, BackendLeftOut, CheckScan, check_same, faster
from oarlock.inference.models import load
from oarlock.inference.network import CPU
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import head_and_neck
from oarlock.segmentation.segment import Model
from tests.worker.tiny_model import write_tiny_model

HAS_CUDA = onnxruntime.get_device() == "GPU" and Path("/dev/nvidiactl").exists()
BRAIN, LENS = BY_NAME["Brain"], BY_NAME["Lens_L"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_tiny_model(tmp_path_factory.mktemp("tiny")), device="cpu", threads=1)


@pytest.fixture(scope="module")
def scan() -> CheckScan:
    phantom = head_and_neck(shape=(30, 60, 64), spacing_mm=(9.0, 7.0, 7.0), seed=1)
    return CheckScan(phantom.hu, phantom.grid)


def masks(voxels: int, *, of: int = 1000) -> OARMasks:
    """A brain of so many voxels, the first ones."""
    made = OARMasks.empty([BRAIN, LENS], (1, 1, of))
    made.bits[0, 0, :voxels] = made.bit(BRAIN)
    made.bits[0, 0, :2] |= made.bit(LENS)
    return made


def test_an_organ_is_the_same_from_a_dice_of_0_995_on() -> None:
    """Of 1,000 voxels and n of them, Dice is 2 n / (1,000 + n): 0.99548 for 991, and 0.99498 for 990."""
    check_same(masks(1000), masks(991))
    with pytest.raises(BackendLeftOut, match=r"Brain is drawn otherwise: Dice 0\.9950 and"):
        check_same(masks(1000), masks(990))
    without = masks(1000)
    without.bits &= without.bit(BRAIN)
    with pytest.raises(BackendLeftOut, match="does not show Lens_L"):
        check_same(without, masks(1000))
    assert LEAST_DICE == 0.995


@pytest.mark.slow
def test_the_first_that_draws_the_same_is_used_and_the_reason_of_each_other_is_said(
    model: Model, scan: CheckScan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that draws nothing comes first; it loads, answers its self-check, and is left out all the same."""
    monkeypatch.setattr(backends, "BACKENDS", {"silent": (CPU,), "same": (CPU,)})
    loaded: list[Model] = []

    def loads(manifest: Any, **options: Any) -> Model:
        found = load(manifest, **options)
        if not loaded:
            found = Model(manifest, {"model": _Silent(found.predictors["model"])}, "cpu")
        loaded.append(found)
        return found

    monkeypatch.setattr(backends, "load", loads)
    with caplog.at_level(logging.INFO):
        assert faster(model, ["silent", "same"], scan, threads=1) is loaded[1]
    said = {record.backend: getattr(record, "reason", "") for record in caplog.records if hasattr(record, "backend")}
    assert said["silent"].startswith("Brain is drawn otherwise: Dice 0.0000")
    assert said["same"] == ""


class _Silent:
    provider = CPU

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, hu: np.ndarray) -> np.ndarray:
        return np.zeros_like(self._network(hu))


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a GPU")
def test_what_this_machine_does_not_have_changes_nothing(model: Model, scan: CheckScan) -> None:
    assert faster(model, list(BACKENDS), scan, threads=1) is model


@pytest.mark.skipif(not HAS_CUDA, reason="no GPU here")
@pytest.mark.parametrize("name", BACKENDS)
def test_on_a_gpu_a_backend_is_used_or_left_out_but_never_draws_otherwise(name: str, model: Model, scan: CheckScan) -> None:
    from oarlock.segmentation.segment import segment

    used = faster(model, [name], scan)
    check_same(segment(scan.hu, scan.grid, model).masks, segment(scan.hu, scan.grid, used).masks)
