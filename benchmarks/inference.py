"""The network on the CPU: ``python -m benchmarks.inference SERIES``.

Under three runtimes, and at the paper's size.

The same slabs of one real scan go through torch, ONNX Runtime (what the worker uses; also the half-precision twin) and OpenVINO:
wall and CPU seconds a scan (median of a few rounds, the runtimes in turn), and how many mask voxels differ from torch's. Then a
network of the paper's size with random weights goes through the worker's own runtime at 512 × 512, one slab after the other; its
seconds a scan are those of a slab times their number. GFLOP are counted by torch (two for each multiply-add). With ``--nnunet`` a
network of nnU-Net's real size goes through ours, torch and nnU-Net's own predictor (:mod:`benchmarks.own_predictor`).
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.own_predictor import print_table
from model_export.config import Config, read_config
from model_export.export import export_model
from model_export.halve import write_half
from model_export.network import Network
from model_export.served import Served
from model_export.start import load_onnx
from model_export.train import cpu_has_bfloat16
from oarlock.inference.models import load
from oarlock.segmentation.manifest import ModelManifest, read_manifest
from oarlock.segmentation.resampling import to_model_grid
from oarlock.segmentation.slabs import Predictor, Volume, predict_in_slabs, slab_for
from tools.studies.robustness import read_scan

CONFIGS = Path(__file__).parents[1] / "model_export" / "configs"
PAPER_SLICES = 150


@dataclass
class Row:
    """One runtime: seconds of its rounds, and its differing voxels.

    The share of the drawn voxels that differ from torch's.
    """

    name: str
    wall_s: list[float]
    cpu_s: list[float]
    differing: float | None = None


def shipped_config() -> Config:
    """The config of the shipped model."""
    return read_config(CONFIGS / "hn_4mm.toml")


def runtimes(manifest: ModelManifest, folder: Path) -> Iterator[tuple[str, Predictor]]:
    """Each by name; torch first, for it judges the others."""
    network = Network(shipped_config().network)
    load_onnx(network, manifest.parts[0].path)
    yield "torch, float32", torch_predictor(Served(network).eval())
    yield "**ONNX Runtime, float32 (ours)**", load(manifest, device="cpu").predictors[manifest.parts[0].name]
    half = folder / "half.onnx"
    write_half(manifest.parts[0].path, half)
    yield "ONNX Runtime, half-size file", onnx_predictor(half, manifest)
    try:
        import openvino
    except ImportError:
        print("OpenVINO is not installed: pip install openvino", file=sys.stderr)
        return
    for precision in ("f32", "bf16"):
        if precision == "f32" or cpu_has_bfloat16():
            yield f"OpenVINO, {precision}", openvino_predictor(openvino, manifest, precision)


def torch_predictor(served: Served) -> Predictor:
    """The network under torch."""

    def run(hu: Volume) -> Volume:
        with torch.no_grad():
            answer: Volume = served(torch.from_numpy(hu)).numpy()
        return answer

    return run


def onnx_predictor(path: Path, manifest: ModelManifest) -> Predictor:
    """Another file under ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda hu: np.asarray(session.run([manifest.parts[0].output.name], {manifest.parts[0].input.name: hu})[0])


def openvino_predictor(openvino: Any, manifest: ModelManifest, precision: str) -> Predictor:
    """The file under OpenVINO on the CPU."""
    compiled = openvino.Core().compile_model(str(manifest.parts[0].path), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda hu: np.asarray(compiled(hu)[0])


def slabs_of(volume: Volume, manifest: ModelManifest) -> list[Volume]:
    """What the worker feeds, slab by slab."""
    fed: list[Volume] = []
    spec, upscale = manifest.parts[0].input, manifest.parts[0].output.upscale

    def note(hu: Volume) -> Volume:
        fed.append(hu)
        slices, rows, columns = hu.shape[2] - spec.context_slices + 1, hu.shape[3] * upscale, hu.shape[4] * upscale
        return np.zeros((1, len(manifest.oars), slices, rows, columns), np.float32)

    for _ in predict_in_slabs(volume, note, spec):
        pass
    return fed


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(manifest: ModelManifest, slabs: list[Volume], rounds: int, folder: Path) -> list[Row]:
    """Every runtime on every slab, in turn, some rounds."""
    predictors = list(runtimes(manifest, folder))
    rows = [Row(name, [], []) for name, _ in predictors]
    thresholds = np.array(manifest.parts[0].thresholds, np.float32)[:, None, None, None]
    judge = [predictors[0][1](hu)[0] >= thresholds for hu in slabs]  # the first call of each warms it up
    for row, (_, run) in zip(rows, predictors, strict=True):
        found = [run(hu)[0] >= thresholds for hu in slabs]
        drawn = sum(int(mask.sum()) for mask in judge)
        row.differing = sum(int((a != b).sum()) for a, b in zip(found, judge, strict=True)) / max(drawn, 1)
    for _ in range(rounds):
        for row, (_, run) in zip(rows, predictors, strict=True):
            wall, cpu = timed(lambda run=run: [run(hu) for hu in slabs])  # type: ignore[misc]
            row.wall_s.append(wall)
            row.cpu_s.append(cpu)
    return rows


def gflop(config: Config, slab: Volume) -> float:
    """GFLOP of one slab."""
    served = Served(Network(config.network)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        served(torch.from_numpy(slab))
    return float(counter.get_total_flops()) / 1e9


def paper_size(folder: Path, slabs: int) -> None:
    """The paper's network with random weights under the worker's runtime.

    In a process that holds nothing else.
    """
    config = read_config(CONFIGS / "paper.toml")
    torch.manual_seed(1)
    model = folder / "paper-size"
    export_model(Network(config.network), config, model, version="0", facts={}, results={})
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        count, wall, cpu, peak_gib = processes.submit(run_paper_size, model, slabs).result()
    thickness = slab_for((512, 512), config.grid.context_slices)
    shape = (1, 1, thickness + config.grid.context_slices - 1, 512, 512)
    work = gflop(config, np.zeros(shape, np.float32)) * count
    print(f"\nThe paper's size, {PAPER_SLICES} slices of 512 x 512 in {count} slabs of {thickness}:")
    size = (model / "model.onnx").stat().st_size / 1e6
    print(f"{work:,.0f} GFLOP a scan, {wall:,.0f} s wall, {cpu:,.0f} s CPU (from {slabs} slabs), {size:.0f} MB file")
    print(f"highest resident memory of a process that reads the model and a scan: {peak_gib:.2f} GiB")


def run_paper_size(model: Path, slabs: int) -> tuple[int, float, float, float]:
    """Slabs of a scan, their seconds and peak memory.

    Wall and CPU seconds for all of them, from the median of some; resident memory in GiB.
    """
    manifest = read_manifest(model)
    slab = slab_for((512, 512), manifest.parts[0].input.context_slices)
    volume = np.random.default_rng(1).standard_normal((PAPER_SLICES, 512, 512), np.float32) * 300
    walk = predict_in_slabs(volume, load(manifest, device="cpu").predictors[manifest.parts[0].name], manifest.parts[0].input)
    next(walk)  # warms it up
    took = [timed(lambda: next(walk)) for _ in range(slabs)]
    count = -(-PAPER_SLICES // slab)
    wall, cpu = (statistics.median(times) * count for times in zip(*took, strict=True))
    return count, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("series", type=Path, nargs="?", help="folder of one CT series; without it only the paper's size is run")
    parser.add_argument("--model", type=Path, default=Path("models/oarlock-hn"), help="folder of the shipped model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paper-slabs", type=int, default=3, help="how many slabs of the paper's size are timed; 0: none")
    parser.add_argument("--nnunet", type=int, nargs="?", const=128, metavar="PATCH", help="beside nnU-Net's own; 128 if left out")
    parser.add_argument("--threads", type=int, default=2, help="of the runtimes beside nnU-Net's own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.series:
            manifest, scan = read_manifest(options.model), read_scan(options.series)
            slabs = slabs_of(to_model_grid(scan.hu, scan.grid, manifest.parts[0].input).volume, manifest)
            work = sum(gflop(shipped_config(), slab) for slab in slabs)
            print(f"{manifest.identity}: {len(slabs)} slabs, {work:,.0f} GFLOP a scan\n")
            print("| runtime | wall s | CPU s | of ours | drawn voxels that differ |\n| --- | ---: | ---: | ---: | ---: |")
            rows = compare(manifest, slabs, options.rounds, Path(folder))
            ours = statistics.median(rows[1].cpu_s)
            for row in rows:
                wall, cpu = statistics.median(row.wall_s), statistics.median(row.cpu_s)
                print(f"| {row.name} | {wall:.2f} | {cpu:.2f} | {cpu / ours:.2f} | {row.differing:.1e} |")
        if options.nnunet:
            print_table(Path(folder) / "nnunet", options.nnunet, options.threads)
        if options.paper_slabs:
            paper_size(Path(folder), options.paper_slabs)


if __name__ == "__main__":
    main()
