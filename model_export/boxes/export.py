"""From checkpoints of a box's networks to one ONNX file.

And its part of a manifest. The export runs what it wrote.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn

from model_export.augment import F32
from model_export.boxes.config import BoxConfig, BoxRun
from model_export.boxes.network import BoxNetwork
from model_export.boxes.served import ServedBox
from model_export.datasets.training_file import AIR_HU
from model_export.export import (
    OPSET,
    OUTPUT_NAME,
    SELF_CHECK_TOLERANCE,
    Agreement,
    ExportDisagrees,
    check_agreement,
    self_check_means,
)
from oarlock.segmentation.manifest import self_check_input

log = logging.getLogger(__name__)

INPUT_NAME: Final = "hu"
FINDER: Final = "whole"
"""The part of a model that sees the whole scan and lays the boxes of the others."""
LARGEST_BYTES: Final = 16_000_000
SCANS, RADIOGRAPHER = "_scans", "_radiographer"
"""After an organ's name in a part's results: on how many scans it was judged, and the second human's DSC on them."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest says of a part beside its shape.

    A threshold by organ (else 0.5), training, results.
    """

    thresholds: Mapping[str, float]
    training: Mapping[str, Any]
    results: Mapping[str, Any]


def export_box(networks: Sequence[BoxNetwork], run: BoxRun, folder: Path, facts: Facts) -> Agreement:
    """Write ``NAME.onnx`` and ``NAME.part.toml``, and check the file against torch.

    :raises ExportDisagrees: if the file does not give what torch gives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    served = ServedBox(networks, run.box).eval()
    path = folder / f"{run.box.name}.onnx"
    _write_onnx(served, path, run.box)
    agreement = _compare_with_torch(served, path, run.box)
    check_agreement(agreement)
    if path.stat().st_size > LARGEST_BYTES:
        raise ExportDisagrees(f"{path.name} is larger than {LARGEST_BYTES} bytes")
    (folder / f"{run.box.name}.part.toml").write_text(to_part(served, run, path, facts), encoding="utf-8")
    log.info("%s: %.2f MB, %s", path.name, path.stat().st_size / 1e6, agreement)
    return agreement


def _write_onnx(served: nn.Module, path: Path, box: BoxConfig) -> None:
    import onnx

    example = torch.full((1, 1, *box.size), AIR_HU)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs a package that nothing else here needs
        torch.onnx.export(
            served, (example,), str(path), dynamo=False, opset_version=OPSET, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME]
        )
    onnx.checker.check_model(onnx.load(str(path)))


def run_box(path: Path, hu: F32) -> F32:
    """What ONNX Runtime gives on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return cast("F32", session.run([OUTPUT_NAME], {INPUT_NAME: hu})[0])


def _compare_with_torch(served: nn.Module, path: Path, box: BoxConfig) -> Agreement:
    picture = self_check_input(box.size[0], (box.size[1], box.size[2]))
    noise = np.random.default_rng(1).normal(0.0, 100.0, picture.shape).astype(np.float32)
    largest, flipped = 0.0, 0.0
    for hu in (picture, picture + noise):
        with torch.no_grad():
            expected = served(torch.from_numpy(hu)).numpy()
        found = run_box(path, hu)
        largest = max(largest, float(np.abs(found - expected).max()))
        flipped = max(flipped, float(((found > 0.5) != (expected > 0.5)).mean()))
    return Agreement(largest, flipped)


def to_part(served: nn.Module, run: BoxRun, path: Path, facts: Facts) -> str:
    """The ``[[part]]`` of a manifest."""
    box = run.box
    with torch.no_grad():
        answer = served(torch.from_numpy(self_check_input(box.size[0], (box.size[1], box.size[2]))))
    means = self_check_means(answer.numpy())
    organs = [{"name": name, "threshold": facts.thresholds.get(name, 0.5)} for name in box.drawn_organs]
    keys: dict[str, Any] = {
        "name": box.name,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "input": {"name": INPUT_NAME, "spacing_mm": box.spacing_mm, "size_zyx": box.size, "padding_hu": AIR_HU},
        "output": {"name": OUTPUT_NAME, "upscale": box.upscale},
        "oar": organs,
        "self_check": {"expected_means": means, "tolerance": SELF_CHECK_TOLERANCE},
        "training": dict(facts.training),
        "results": dict(facts.results),
    }
    look = {
        "at": "box",
        "found_by": FINDER,
        "around": [{"organ": organ, "offset_mm": offset} for organ, offset in box.anchors.items()],
    }
    part, where = ("\n".join(f"{key} = {to_toml(value)}" for key, value in table.items()) for table in (keys, look))
    head = "# Written by `python -m model_export box-export`; the schema is docs/models.md."
    shares = "".join(f"{organ} = {share}\n" for organ, share in box.shares.items())
    return f"{head}\n\n[[part]]\n{part}\n\n[part.look]\n{where}\n" + (f"\n[shares]\n{shares}" if shares else "")


def to_toml(value: Any) -> str:
    """Strings, numbers, lists and small tables as TOML writes them."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
