"""A network under ours, torch and nnU-Net's own predictor.

It has real size; `python -m benchmarks.inference --nnunet` prints it.

The network is nnU-Net's PlainConvUNet with the widths that its planner gives (31 million weights) and random values; the scan is
a head of water. Each runs in a process of its own, which imports, loads, and draws the whole scan once: seconds are those of
drawing, memory is that of the process. Labels differ where random
logits are nearer to each other than 16 bits, in which nnU-Net sums, can tell.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from model_export.imports.compared import label_map, predicted_by_nnunet
from model_export.imports.nnunet import Wanted, write_model
from model_export.imports.plans import Results, build_network, read_results
from oarlock.inference.models import load
from oarlock.segmentation.manifest import ModelManifest, read_manifest
from oarlock.segmentation.segment import Model

Labels = npt.NDArray[np.int64]

FEATURES: Final = (32, 64, 128, 256, 320, 320)
HEADS: Final = 25
SPACING_MM: Final = (1.5, 1.5, 1.5)


@dataclass(frozen=True)
class Ran:
    """What one runtime took.

    :ivar peak_gib: highest resident memory of its process; ``before_gib`` before it began to draw.
    """

    wall_s: float
    cpu_s: float
    before_gib: float
    peak_gib: float
    labels: Labels


def print_table(folder: Path, patch: int, threads: int) -> None:
    """Draw the scan with each in turn; print a row for each.

    :param patch: side of the network's cubic patches, in voxels; the scan has two of them along y and x.
    """
    make_results(folder / "results", patch)
    write(folder)
    ran = {}
    for name, run in RUNTIMES.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            ran[name] = process.submit(timed, run, folder, patch, threads).result()
    theirs = ran["nnU-Net's own predictor"].labels
    print(f"\nPlainConvUNet, {HEADS} heads, patches of {patch}³, {theirs.shape} voxels, {threads} threads:\n")
    print("| runtime | wall s | CPU s | GiB before | peak GiB | voxels with another label than nnU-Net's |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, row in ran.items():
        other = int((row.labels != theirs).sum())
        print(f"| {name} | {row.wall_s:.1f} | {row.cpu_s:.1f} | {row.before_gib:.2f} | {row.peak_gib:.2f} | {other} |")


def timed(
    run: "Callable[[Path, Path], Callable[[npt.NDArray[np.float32]], Labels]]", folder: Path, patch: int, threads: int
) -> Ran:
    """Run one in this process, which holds nothing else."""
    os.environ |= {f"nnUNet_{kind}": "." for kind in ("raw", "preprocessed", "results")}
    torch.set_num_threads(threads)
    draw, hu, before = run(folder / "results", folder / "model"), head(patch), _peak_gib()
    wall, cpu = perf_counter(), process_time()
    labels = draw(hu)
    return Ran(perf_counter() - wall, process_time() - cpu, before, _peak_gib(), labels)


def ours(_: Path, model: Path) -> Callable[[npt.NDArray[np.float32]], Labels]:
    """The worker's own session and patches."""
    loaded = load(read_manifest(model), device="cpu", threads=torch.get_num_threads())
    return lambda hu: label_map(loaded, loaded.manifest.parts[0], hu, SPACING_MM, half=False)[0]


def under_torch(results: Path, model: Path) -> Callable[[npt.NDArray[np.float32]], Labels]:
    """The same patches, with torch as the runtime."""
    taken, manifest = read_results(results), read_manifest(model)
    network = build_network(taken, taken.folds["0"])

    def predict(patch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            answer: npt.NDArray[np.float32] = network(torch.from_numpy(np.ascontiguousarray(patch))).numpy()
        return answer

    loaded = Model(manifest, {manifest.parts[0].name: predict}, "cpu")
    return lambda hu: label_map(loaded, manifest.parts[0], hu, SPACING_MM, half=False)[0]


def of_nnunet(results: Path, model: Path) -> Callable[[npt.NDArray[np.float32]], Labels]:
    """nnU-Net's own predictor, on the CPU."""
    taken: Results = read_results(results)
    manifest: ModelManifest = read_manifest(model)
    return lambda hu: predicted_by_nnunet(taken, manifest.parts[0], hu, SPACING_MM)


RUNTIMES: Final = {
    "**Oarlock (ONNX Runtime)**": ours,
    "Oarlock's patches, torch": under_torch,
    "nnU-Net's own predictor": of_nnunet,
}


def head(patch: int) -> npt.NDArray[np.float32]:
    """An ellipse of water with noise in air, HU (z, y, x).

    One patch high and one and a half wide.
    """
    y, x = np.ogrid[-1 : 1 : (patch * 3 // 2) * 1j, -1 : 1 : (patch * 3 // 2) * 1j]
    inside = (y / 0.9) ** 2 + (x / 0.7) ** 2 < 1
    noise = np.random.default_rng(1).normal(0, 30, (patch, *inside.shape))
    return np.where(inside, noise, -1000).astype(np.float32)


def make_results(folder: Path, patch: int) -> None:
    """A results folder as nnU-Net's trainer leaves it.

    With weights that nobody trained.
    """
    stages = len(FEATURES)
    kwargs: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": list(FEATURES),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    class_name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    requires = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [patch] * 3,
        "spacing": list(SPACING_MM),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {"network_class_name": class_name, "arch_kwargs": kwargs, "_kw_requires_import": requires},
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        configuration |= {f"resampling_fn_{what}": "resample_data_or_seg_to_shape"}
        configuration[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": what == "seg",
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    plans = {
        "dataset_name": "Dataset900_Random",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 0.0, "std": 300.0, "percentile_00_5": -950.0, "percentile_99_5": 900.0}
        },
    }
    labels = {"background": 0} | {f"label_{n}": n for n in range(1, HEADS)}
    described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(described))
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    told = {"init_args": {"configuration": "3d_fullres"}, "trainer_name": "nnUNetTrainerNoMirroring"}
    torch.save({"network_weights": {}, **told}, checkpoint)
    torch.manual_seed(1)
    torch.save({"network_weights": _random(read_results(folder)), **told}, checkpoint)


def _random(results: Results) -> dict[str, torch.Tensor]:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    told = dict(results.configuration["architecture"]["arch_kwargs"])
    layers = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    network = PlainConvUNet(input_channels=1, num_classes=HEADS, deep_supervision=False, **(told | layers))
    return dict(network.state_dict())


def write(folder: Path) -> None:
    """The model folder of the results."""
    (folder / "model").mkdir()
    wanted = Wanted(organs=folder, check=folder, orientation="LPS", look="scan")
    write_model(read_results(folder / "results"), folder / "model", "random", wanted, {"Brain": (1,), "Bone_Mandible": (2,)})


def _peak_gib() -> float:
    """Highest resident memory of this process; what ``getrusage`` says begins with that of the one which started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20
