"""A composed model small enough to be made in a test: a finder on a coarse grid, and a part that draws finely in a box.

Both ask of each voxel whether it is denser than a limit; the fine part sees its whole box at once and answers on its own lattice.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from oarlock.segmentation.manifest import ModelManifest, read_manifest, self_check_input

SLOPE: Final = 0.05
FED_ZYX, FED_MM = (8, 12, 10), (2.5, 4.0, 4.0)
GIVEN_ZYX: Final = (20, 48, 40)
"""1 mm voxels over the same 20 × 48 × 40 mm."""

TEXT: Final = """
schema_version = 2

[model]
name = "two-parts"
version = "3"
licence = "Apache-2.0"
description = "a finder and a fine part"

[[part]]
name = "fine"
file = "fine.onnx"
sha256 = "{fine}"
look = {{ at = "box", around = [
    {{ organ = "Eye_L", offset_mm = [-1.0, 1.0, -9.5] }},
    {{ organ = "Eye_R", offset_mm = [1.0, 0.0, 9.5] }},
], found_by = "whole" }}
input = {{ name = "hu", spacing_mm = [2.5, 4.0, 4.0], size_zyx = [8, 12, 10], padding_hu = -1000.0 }}
output = {{ name = "probability", size_zyx = [20, 48, 40] }}
oar = [{{ name = "Eye_L" }}, {{ name = "Lens_L", threshold = 0.4 }}]
self_check = {{ expected_means = {fine_means}, tolerance = 1e-4 }}

[[part]]
name = "whole"
file = "whole.onnx"
sha256 = "{whole}"
input = {{ name = "hu", spacing_mm = [2.5, 2.0, 2.0], size_yx = [64, 64], padding_hu = -1000.0 }}
output = {{ name = "probability", upscale = 2 }}
oar = [{{ name = "Eye_L" }}, {{ name = "Eye_R" }}, {{ name = "Brain" }}]
self_check = {{ slices = 4, size_yx = [64, 64], expected_means = {whole_means}, tolerance = 1e-4 }}

[owners]
Brain = "whole"
Eye_L = "fine"
Eye_R = "whole"
Lens_L = "fine"
"""


def denser(hu: np.ndarray, limits_hu: Mapping[int, tuple[float, float]]) -> np.ndarray:
    """(1, channels, z, y, x): for each channel whether the voxel's HU lies between two limits, softly."""
    return np.concatenate([_between(hu, low, high) for low, high in limits_hu.values()], axis=1).astype(np.float32)


def _between(hu: np.ndarray, low: float, high: float) -> np.ndarray:
    return 1 / (1 + np.exp(-SLOPE * np.maximum(np.minimum(hu - low, high - hu), -1_500)))


WHOLE: Final = {0: (150.0, 250.0), 1: (350.0, 450.0), 2: (0.0, 1e4)}
FINE: Final = {0: (150.0, 250.0), 1: (800.0, 1e4)}


def write_parts(folder: Path, *, text: str = TEXT) -> ModelManifest:
    """Write both ONNX files and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_network(WHOLE, upscale=(1, 2, 2), sizes=None), folder / "whole.onnx")
    fine = tuple(b / a for a, b in zip(FED_ZYX, GIVEN_ZYX, strict=True))
    onnx.save(_network(FINE, upscale=fine, sizes=FED_ZYX), folder / "fine.onnx")
    hashes = {name: hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest() for name in ("whole", "fine")}
    means = {
        "whole_means": _means(WHOLE, self_check_input(4, (64, 64))),
        "fine_means": _means(FINE, self_check_input(8, (12, 10)), GIVEN_ZYX),
    }
    (folder / "manifest.toml").write_text(text.format(**hashes, **means), encoding="utf-8")
    return read_manifest(folder)


def divided(answer: np.ndarray, shape_zyx: tuple[int, int, int]) -> np.ndarray:
    """Each voxel divided into smaller ones with its value; the outer edges coincide."""
    for axis, n in zip((2, 3, 4), shape_zyx, strict=True):
        answer = answer.take(np.arange(n) * answer.shape[axis] // n, axis=axis)
    return answer


def _means(
    limits: Mapping[int, tuple[float, float]], hu: np.ndarray, shape_zyx: tuple[int, int, int] | None = None
) -> list[float]:
    """Of the answer to the self-check; an even division leaves a mean as it is."""
    answer = denser(hu.astype(np.float64), limits)
    answer = divided(answer, shape_zyx) if shape_zyx else answer
    return [float(mean) for mean in answer.mean(axis=(0, 2, 3, 4), dtype=np.float64)]


def _network(
    limits: Mapping[int, tuple[float, float]], *, upscale: tuple[float, ...], sizes: tuple[int, ...] | None
) -> onnx.ModelProto:
    """Sigmoid of the distance to the nearer limit, and each voxel divided (nearest neighbour, outer edges coincide)."""
    low, high = (
        np.array([limits[channel][side] for channel in limits], np.float32)[None, :, None, None, None] for side in (0, 1)
    )
    nodes = [
        helper.make_node("Sub", ["hu", "low"], ["above"]),
        helper.make_node("Sub", ["high", "hu"], ["below"]),
        helper.make_node("Min", ["above", "below"], ["inside"]),
        helper.make_node("Mul", ["inside", "slope"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["coarse"]),
        helper.make_node(
            "Resize",
            ["coarse", "", "scales"],
            ["probability"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ]
    fed = ["n", 1, *(sizes or ("z", "y", "x"))]
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info("hu", TensorProto.FLOAT, fed)],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", len(limits), "z2", "y2", "x2"])],
        [
            numpy_helper.from_array(low, "low"),
            numpy_helper.from_array(high, "high"),
            numpy_helper.from_array(np.array(SLOPE, np.float32), "slope"),
            numpy_helper.from_array(np.array([1.0, 1.0, *upscale], np.float32), "scales"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model
