"""Writing an imported network: its ONNX file and its manifest.

The file is compared with torch at once.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from model_export.boxes.compose import to_composed
from model_export.imports.refusals import CannotImport
from oarlock.segmentation.manifest import MANIFEST_NAME, Part
from oarlock.segmentation.patches import head_probabilities, question

OPSET: Final = 18
TOLERANCE: Final = 1e-3
LARGEST_DIFFERENCE: Final = 1e-3
"""Of a logit, relative to the largest, between the ONNX file and torch."""


LIMITS: Final = (
    "clinical use without review and correction by a qualified person",
    "what whoever trained it says it is not for",
)


PATIENT: Final = {"S": 0, "I": 0, "P": 1, "A": 1, "L": 2, "R": 2}


def in_patient_order(values: Sequence[Any], axes: str) -> list[Any]:
    """One value for each patient axis, in the order (z, y, x).

    :param values: in the order of the network's axes.
    """
    of = {PATIENT[letter]: value for letter, value in zip(axes, values, strict=True)}
    return [of[0], of[1], of[2]]


def write_onnx(network: nn.Module, path: Path, patch: Sequence[int]) -> None:
    """Write a network as one ONNX file, and compare with torch.

    It has one channel and one size of patch.

    :raises CannotImport: if the two differ.
    """
    import onnx

    example = torch.zeros(1, 1, *patch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's newer exporter knows fixed shapes alone and writes external data
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["patch"],
            output_names=["logits"],
        )
    onnx.checker.check_model(str(path))
    noise = np.random.default_rng(1).normal(0.0, 1.0, (1, 1, *patch)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(noise)).numpy()
    difference = float(np.abs(_answer(path, noise) - expected).max() / max(np.abs(expected).max(), 1e-6))
    if difference > LARGEST_DIFFERENCE:
        raise CannotImport(f"{path.name} gives other logits than torch: they differ by {difference:.1e} of the largest")


def _answer(path: Path, patch: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"patch": patch})[0]


def expected_means(folder: Path, part: Part) -> list[float]:
    """The mean probability of each head in a self-check.

    In the answer of one part.
    """
    assert part.patches is not None
    asked = question(part)
    logits = np.mean([_answer(file.path, asked) for file in part.files], axis=0)
    means = head_probabilities(logits, part.patches).mean(axis=(0, 2, 3, 4), dtype=np.float64)
    if not np.isfinite(means).all():
        raise CannotImport(f"the network of {folder.name} answers with what are not numbers")
    return [round(float(mean), 7) for mean in means]


def write_manifest(folder: Path, model: Mapping[str, Any], part: Mapping[str, Any], means: Sequence[float], *, by: str) -> None:
    """The manifest of a model of one part.

    :param means: what its self-check expects.
    :param by: the command that writes it.
    """
    whole = {**part, "self_check": {"expected_means": list(means), "tolerance": TOLERANCE}}
    owners = {oar["name"]: part["name"] for oar in part["oar"]}
    text = to_composed(model, [whole], owners, {"not_for": list(LIMITS)}, by=by)
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
