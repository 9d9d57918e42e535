"""From a checkpoint to a model folder.

The ONNX file, its manifest, its card. The export runs what it wrote.

The exporter folds every norm that follows a convolution into it; a norm that follows a residual sum stays a
BatchNormalization. The sigmoid is in the graph, as is the Hounsfield window: HU in, probabilities out.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model_export.config import Config
from model_export.datasets.training_file import AIR_HU
from model_export.evaluate import THRESHOLD, Summary, to_table
from model_export.network import Network
from model_export.served import Served
from oarlock.organs.catalogue import OARS
from oarlock.segmentation.manifest import MANIFEST_NAME, check_hash, read_manifest, self_check_input

log = logging.getLogger(__name__)

INPUT_NAME: Final = "ct_hu"
OUTPUT_NAME: Final = "probability"
OPSET: Final = 17
SELF_CHECK_SLICES: Final = 22  # two predicted slices
SELF_CHECK_TOLERANCE: Final = 1e-3
PROBABILITY_TOLERANCE: Final = 1e-4
MASK_TOLERANCE: Final = 1e-3

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked at.

    The picture that `look` made (a PNG), and the table of ``tools.studies.robustness`` (Markdown).
    """

    picture: Path | None = None
    robustness: Path | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far ONNX Runtime and torch are apart.

    The largest difference of a probability, the share of mask voxels.
    """

    probability: float
    mask_share: float


class ExportDisagrees(RuntimeError):
    """ONNX Runtime does not give what torch gives."""


def export_model(
    network: Network,
    config: Config,
    folder: Path,
    *,
    version: str,
    facts: dict[str, Any],
    results: dict[str, Any],
    thresholds: Mapping[str, float] = MappingProxyType({}),
    seen: Seen = Seen(),
) -> Agreement:
    """Write ``model.onnx``, the manifest and the card, and check all three.

    `facts` go into the manifest's [training], `results` (what `evaluate` wrote) into [results] and the card; an OAR without an
    entry in `thresholds` gets 0.5. `seen` is what is shown in the card beside the numbers.

    :raises ExportDisagrees: if the file does not give what torch gives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    served = Served(network).eval()
    path = folder / "model.onnx"
    write_onnx(served, path, config)
    agreement = compare_with_torch(served, path, config)
    check_agreement(agreement)
    manifest = to_manifest(served, config, path, version=version, facts=facts, results=results) + to_organs(thresholds)
    (folder / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(to_card(folder, version, facts, results, seen), encoding="utf-8")
    check_hash(read_manifest(folder))
    log.info("%s: %.1f MB, %s", path.name, path.stat().st_size / 1e6, agreement)
    return agreement


def write_onnx(served: Served, path: Path, config: Config) -> None:
    """The graph, with a dynamic batch and a dynamic number of slices."""
    example = torch.full((1, 1, SELF_CHECK_SLICES, config.grid.size, config.grid.size), AIR_HU)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs a package that nothing else here needs
        torch.onnx.export(
            served,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "batch", 2: "slices"}, OUTPUT_NAME: {0: "batch", 2: "predicted_slices"}},
        )
    fix_output_shape(path, config, channels=served.channels)


def fix_output_shape(path: Path, config: Config, *, channels: int) -> None:
    """State the output's channels, rows and columns.

    The exporter leaves them open after the pixel shuffle.
    """
    import onnx

    model = onnx.load(str(path))
    side = config.grid.size * config.grid.upscale
    sizes: list[int | str] = ["batch", channels, "predicted_slices", side, side]
    for dimension, size in zip(model.graph.output[0].type.tensor_type.shape.dim, sizes, strict=True):
        if isinstance(size, int):
            dimension.dim_value = size
        else:
            dimension.dim_param = size
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def run_onnx(path: Path, ct_hu: F32) -> F32:
    """What ONNX Runtime gives on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return cast("F32", session.run([OUTPUT_NAME], {INPUT_NAME: ct_hu})[0])


def compare_with_torch(served: nn.Module, path: Path, config: Config) -> Agreement:
    """Both on the self-check's picture and on noise.

    Two slabs of a length that the export never saw.
    """
    slices = SELF_CHECK_SLICES + 5
    picture = self_check_input(slices, (config.grid.size, config.grid.size))
    noisy = picture + np.random.default_rng(1).normal(0.0, 100.0, picture.shape).astype(np.float32)
    straight = np.concatenate([picture, noisy]).astype(np.float32)
    ct_hu = np.concatenate([straight, straight[..., ::-1]])  # whichever way round a slab is shown
    with torch.no_grad():
        expected = served(torch.from_numpy(ct_hu)).numpy()
    found = run_onnx(path, ct_hu)
    flipped: npt.NDArray[np.bool_] = (found > THRESHOLD) != (expected > THRESHOLD)
    return Agreement(float(np.abs(found - expected).max()), float(flipped.mean()))


def check_agreement(agreement: Agreement) -> None:
    """Check that a file gives what torch gives.

    :raises ExportDisagrees: if it does not.
    """
    if agreement.probability > PROBABILITY_TOLERANCE or agreement.mask_share > MASK_TOLERANCE:
        raise ExportDisagrees(f"{agreement} is more than {PROBABILITY_TOLERANCE} or {MASK_TOLERANCE}")


def self_check_means(answer: F32) -> list[float]:
    """Each channel's mean, as a manifest holds it.

    Of (N, channels, Z, Y, X).
    """
    return [round(float(mean), 7) for mean in answer.mean(axis=(0, 2, 3, 4), dtype=np.float64)]


def to_manifest(
    served: nn.Module, config: Config, path: Path, *, version: str, facts: dict[str, Any], results: dict[str, Any]
) -> str:
    """The manifest's TOML but for its OARs; its schema is ``oarlock.segmentation.manifest``."""
    side = config.grid.size
    with torch.no_grad():
        answer = served(torch.from_numpy(self_check_input(SELF_CHECK_SLICES, (side, side))))
    means = self_check_means(answer.numpy())
    tables: dict[str, dict[str, Any]] = {
        "model": {
            "name": path.parent.name,
            "version": version,
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "licence": "CC-BY-4.0",
            "description": "21 organs at risk on head and neck CT: the paper's residual 3D U-Net on a 4 mm grid, 2 mm output",
        },
        "input": {
            "name": INPUT_NAME,
            "spacing_mm": list(config.grid.spacing_mm),
            "size_yx": [side, side],
            "context_slices": config.grid.context_slices,
            "padding_hu": AIR_HU,
            "hu_windows_in_graph": [list(window) for window in config.network.hu_windows],
        },
        "output": {"name": OUTPUT_NAME, "upscale": config.grid.upscale},
        "self_check": {
            "slices": SELF_CHECK_SLICES,
            "size_yx": [side, side],
            "expected_means": means,
            "tolerance": SELF_CHECK_TOLERANCE,
        },
        "training": facts,
        "results": {f"{line['source']}_{line['oar']}": round(line["mean"], 3) for line in results.get("summary", [])},
        "limits": {"not_for": list(LIMITS)},
    }
    text = "\n".join(_table(name, keys) for name, keys in tables.items())
    return f"# Written by `python -m model_export export`; the schema is docs/models.md.\n\n{text}\n"


def to_organs(thresholds: Mapping[str, float]) -> str:
    """The manifest's list of OARs, in the order of the channels."""
    return "\n".join(f'[[oar]]\nname = "{oar.name}"\nthreshold = {thresholds.get(oar.name, THRESHOLD)}\n' for oar in OARS)


LIMITS: Final = (
    "clinical use without review and correction by a qualified person",
    "children; patients who do not lie supine, head first",
    "CT with other than Hounsfield units: cone beam CT, MR, synthetic CT",
    "lenses, optic nerves, lacrimal glands and cochleae as planning constraints: two or three training scans show them whole",
)


def to_card(folder: Path, version: str, facts: dict[str, Any], results: dict[str, Any], seen: Seen) -> str:
    """The model card.

    What it was made from, how well it does, what it is not for. The picture is copied beside it.
    """
    if seen.picture:
        (folder / PICTURE).write_bytes(seen.picture.read_bytes())
    lines = [Summary(**line) for line in results.get("summary", [])]
    return CARD.read_text(encoding="utf-8").format(
        name=folder.name,
        version=version,
        split=LEARNT_FROM_JUDGES if facts.get("learnt_from_judges") else "They were never trained on.",
        facts="\n".join(f"- {key}: {value}" for key, value in facts.items() if key != "learnt_from_judges"),
        table=to_table(lines) if lines else "Not yet measured.",
        picture=f"![Contours on axial, coronal and sagittal cuts]({PICTURE})" if seen.picture else "Not yet looked at.",
        robustness=seen.robustness.read_text(encoding="utf-8").strip() if seen.robustness else "Not yet measured.",
        limits="\n".join(f"- {limit}" for limit in LIMITS),
    )


LEARNT_FROM_JUDGES: Final = (
    "The network that is judged below was never trained on them; what ships went on from it and learnt from all scans."
)
PICTURE: Final = "native.png"
CARD: Final = Path(__file__).with_name("card.md")


def _table(name: str, keys: dict[str, Any]) -> str:
    # JSON's strings, numbers and flat lists are TOML's
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return "\n".join([f"[{name}]", *lines, ""])
