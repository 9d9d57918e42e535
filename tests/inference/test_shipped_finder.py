"""The shipped model as the finder of a part that somebody adds: two files and a manifest."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from oarlock.geometry.masks import volume_ml
from oarlock.inference.models import load
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import Phantom
from oarlock.segmentation.manifest import MANIFEST_NAME, ModelManifest, Part, read_manifest
from oarlock.segmentation.segment import segment

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[2] / "models" / "oarlock-hn"
EYES = ("Eye_L", "Eye_R")
SIZE_ZYX, SPACING_MM, UPSCALE = (24, 24, 40), (2.5, 4.0, 4.0), 4
OFFSETS_MM = {"Eye_L": [0.0, 16.0, -32.0], "Eye_R": [0.0, 16.0, 32.0]}
RADIUS_MM = 12.0


def balls() -> np.ndarray:
    """(1, 2, z, y, x): a ball where each eye lies in a box that was laid right, whatever the CT shows."""
    shape = (SIZE_ZYX[0], SIZE_ZYX[1] * UPSCALE, SIZE_ZYX[2] * UPSCALE)
    steps = np.array(SPACING_MM) / [1, UPSCALE, UPSCALE]
    places = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), axis=-1) * steps
    inside = [np.linalg.norm(places + OFFSETS_MM[eye], axis=-1) < RADIUS_MM for eye in EYES]
    return np.stack(inside).astype(np.float32)[None]


def write_balls(path: Path) -> None:
    """A network that answers with the balls."""
    nodes = [
        helper.make_node("ReduceMean", ["hu"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["balls", "zero"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "balls",
        [helper.make_tensor_value_info("hu", TensorProto.FLOAT, [1, 1, *SIZE_ZYX])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, list(balls().shape))],
        [numpy_helper.from_array(balls(), "balls"), numpy_helper.from_array(np.array(0.0, np.float32), "nothing")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def table_of(finder: Part) -> dict[str, object]:
    spec, check = finder.input, finder.self_check
    fed = {"spacing_mm": list(spec.spacing_mm or ()), "size_yx": list(spec.size_yx or ())}
    return {
        "name": "whole",
        "file": "whole.onnx",
        "sha256": finder.sha256,
        "input": fed | {"name": spec.name, "context_slices": spec.context_slices, "padding_hu": spec.padding_hu},
        "output": {"name": finder.output.name, "upscale": finder.output.upscale},
        "oar": [{"name": oar.name, "threshold": t} for oar, t in zip(finder.oars, finder.thresholds, strict=True)],
        "self_check": {
            "slices": check.slices,
            "size_yx": list(check.size_yx),
            "expected_means": list(check.expected_means),
            "tolerance": check.tolerance,
        },
    }


def toml(value: object) -> str:
    """A value on one line: TOML writes it as JSON does, but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def with_balls(folder: Path) -> ModelManifest:
    shipped = read_manifest(SHIPPED)
    finder = next(part for part in shipped.parts if part.look.at == "scan" and BY_NAME["Eye_L"] in part.oars)
    folder.mkdir()
    write_balls(folder / "balls.onnx")
    (folder / "whole.onnx").write_bytes(finder.path.read_bytes())
    means = balls().mean(axis=(0, 2, 3, 4), dtype=np.float64)
    part = {
        "name": "balls",
        "file": "balls.onnx",
        "sha256": hashlib.sha256((folder / "balls.onnx").read_bytes()).hexdigest(),
        "look": {"at": "box", "found_by": "whole", "around": [{"organ": eye, "offset_mm": OFFSETS_MM[eye]} for eye in EYES]},
        "input": {"name": "hu", "spacing_mm": list(SPACING_MM), "size_zyx": list(SIZE_ZYX), "padding_hu": -1000.0},
        "output": {"name": "probability", "upscale": UPSCALE},
        "oar": [{"name": eye} for eye in EYES],
        "self_check": {"expected_means": means.tolist(), "tolerance": 1e-3},
    }
    tables = {
        "schema_version": 2,
        "model": {"name": "with-balls", "version": "1", "licence": "Apache-2.0", "description": "the shipped model, and balls"},
        "part": [part, table_of(finder)],
        "owners": {oar.name: "balls" if oar.name in EYES else "whole" for oar in finder.oars},
    }
    (folder / MANIFEST_NAME).write_text("\n".join(f"{key} = {toml(value)}" for key, value in tables.items()), encoding="utf-8")
    return read_manifest(folder)


@pytest.mark.long("shipped")
def test_the_shipped_model_finds_the_eyes_of_the_phantom_for_a_part_that_draws_them(phantom: Phantom, tmp_path: Path) -> None:
    grid, true = phantom.grid, phantom.masks
    found = segment(phantom.hu, grid, load(with_balls(tmp_path / "with-balls"), device="cpu"))
    assert not found.notices
    for eye in (BY_NAME[name] for name in EYES):
        drawn, expected = found.masks.crop(eye), true.crop(eye)
        assert drawn is not None
        assert expected is not None
        middles = [grid.to_points(np.argwhere(mask) + [s.start for s in box]).mean(axis=0) for box, mask in (drawn, expected)]
        assert np.linalg.norm(middles[0] - middles[1]) < 4.0
        assert volume_ml(drawn, grid) == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3 / 1000, rel=0.1)
    assert found.masks.mask(BY_NAME["Brain"]).any()
