"""A model folder of half the size.

The same graph with 16-bit weights and arithmetic, measured against the one it comes from.

Input and output stay 32-bit, so the runtime sees no difference. It is meant for GPUs with half-precision units; a CPU computes it
in 32 bit with casts in between, and is slower for it. Layouts other than the graph's own must stay off: with the CUDA provider's
`prefer_nhwc` the half graph gave wrong masks (docs/model.md).
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from model_export.export import F32, Agreement, run_onnx, self_check_means
from oarlock.segmentation.manifest import MANIFEST_NAME, ModelManifest, check_hash, read_manifest, self_check_input

HALF_TOLERANCE = 1e-2
"""Of a channel's mean in the self-check: half precision has three decimal digits."""


def halve(source: Path, folder: Path, *, slabs: F32 | None = None) -> Agreement:
    """Write the half-size twin of a model folder.

    And say how far the two are apart.

    :param slabs: (N, 1, Z, Y, X) HU to compare on; the self-check's picture where there are none.
    """
    manifest = read_manifest(source)
    check_hash(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / manifest.parts[0].path.name
    write_half(manifest.parts[0].path, path)
    picture = self_check_input(manifest.parts[0].self_check.slices, manifest.parts[0].self_check.size_yx)
    answer = run_onnx(path, picture)
    text = half_manifest((source / MANIFEST_NAME).read_text(encoding="utf-8"), manifest, path, answer)
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    check_hash(read_manifest(folder))
    return agreement_of(manifest, path, picture if slabs is None else slabs)


def write_half(source: Path, path: Path) -> None:
    """The graph in half precision.

    What goes in and comes out stays float32.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every weight that rounds to zero
        onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(path))


def half_manifest(text: str, manifest: ModelManifest, path: Path, answer: F32) -> str:
    """The manifest of the twin: its own name, hash and self-check."""
    means = self_check_means(answer)
    changes: dict[str, Any] = {
        "name": f'"{path.parent.name}"',
        "sha256": f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"',
        "description": f'"{manifest.description}; half precision"',
        "expected_means": means,
        "tolerance": HALF_TOLERANCE,
    }
    lines = text.splitlines()
    for key, value in changes.items():
        first = next(number for number, line in enumerate(lines) if line.startswith(f"{key} = "))
        lines[first] = f"{key} = {value}"
    return "\n".join(lines) + "\n"


def agreement_of(manifest: ModelManifest, path: Path, slabs: F32) -> Agreement:
    """Largest difference of a probability, and share of differing mask voxels.

    Of those voxels that either draws.
    """
    thresholds = np.array(manifest.parts[0].thresholds, np.float32)[:, None, None, None]
    whole, half = run_onnx(manifest.parts[0].path, slabs), run_onnx(path, slabs)
    drawn, drawn_half = whole >= thresholds, half >= thresholds
    either = int((drawn | drawn_half).sum())
    return Agreement(float(np.abs(whole - half).max()), float((drawn != drawn_half).sum()) / max(either, 1))
