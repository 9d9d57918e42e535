"""A network small enough to be made in a test: is a voxel, averaged over three slices, denser than a limit?"""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from oarlock.segmentation.manifest import ModelManifest, read_manifest, self_check_input

LIMITS_HU: Final = {"Brain": 20.0, "Bone_Mandible": 400.0}
SLOPE: Final = 0.05
_SLICES, _SIZE = 5, (24, 20)


def sigmoid_of_means(hu: np.ndarray) -> np.ndarray:
    """What the network answers, from its definition."""
    means = (hu[:, :, :-2] + hu[:, :, 1:-1] + hu[:, :, 2:]) / 3
    return np.concatenate([1 / (1 + np.exp(-SLOPE * (means - limit))) for limit in LIMITS_HU.values()], axis=1)


def write_tiny_model(folder: Path, *, name: str = "tiny", swallow: int = 1, linger: int = 0) -> ModelManifest:
    """Write the ONNX file and its manifest.

    :param swallow: how many times the input is repeated on the way, to need any amount of memory.
    :param linger: how many sines of the input are taken for nothing, to need any amount of time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(_network(swallow, linger), path)
    means = sigmoid_of_means(self_check_input(_SLICES, _SIZE).astype(np.float64)).mean(axis=(0, 2, 3, 4))
    (folder / "manifest.toml").write_text(_manifest(name, hashlib.sha256(path.read_bytes()).hexdigest(), means.tolist()))
    return read_manifest(folder)


def _network(swallow: int, linger: int) -> onnx.ModelProto:
    weights = np.full((2, 1, 3, 1, 1), SLOPE / 3, np.float32)
    bias = np.array([-SLOPE * limit for limit in LIMITS_HU.values()], np.float32)
    shape = ["n", 1, "z", "y", "x"]
    nodes = [
        helper.make_node("Expand", ["ct", "repeats"], ["repeated"]),
        helper.make_node("ReduceMean", ["repeated"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Loop", ["linger", "", "mean"], ["sines"], body=_sines()),
        helper.make_node("Mul", ["sines", "nothing"], ["zero"]),
        helper.make_node("Add", ["mean", "zero"], ["hu"]),
        helper.make_node("Conv", ["hu", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("ct", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2, "slices", "y", "x"])],
        [
            numpy_helper.from_array(np.array([swallow, 1, 1, 1, 1], np.int64), "repeats"),
            numpy_helper.from_array(np.array(linger, np.int64), "linger"),
            numpy_helper.from_array(np.array(0.0, np.float32), "nothing"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _sines() -> onnx.GraphProto:
    tensor, scalar = ["n", 1, "z", "y", "x"], helper.make_tensor_value_info
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Sin", ["before"], ["after"])],
        "sines",
        [scalar("i", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, []), scalar("before", TensorProto.FLOAT, tensor)],
        [scalar("go_on", TensorProto.BOOL, []), scalar("after", TensorProto.FLOAT, tensor)],
    )


def _manifest(name: str, sha256: str, means: list[float]) -> str:
    oars = "\n".join(f'[[oar]]\nname = "{oar}"\nthreshold = 0.5\n' for oar in LIMITS_HU)
    return f"""
[model]
name = "{name}"
version = "1"
file = "model.onnx"
sha256 = "{sha256}"
licence = "Apache-2.0"
description = "denser than a limit"

[input]
name = "ct"
spacing_mm = [2.5, 2.0, 2.0]
size_yx = [64, 64]
context_slices = 3
padding_hu = -1000.0

[output]
name = "probabilities"
upscale = 1

{oars}
[self_check]
slices = {_SLICES}
size_yx = [{_SIZE[0]}, {_SIZE[1]}]
expected_means = {means}
tolerance = 1e-4
"""
