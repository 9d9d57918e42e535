"""Memory and time in patches: ``python -m benchmarks.patches [MODEL]``.

A network that goes in patches, on a scan of 512 × 512 × 186.

Without a model a pretended network answers at once: what is printed is the cost of everything around the network. With a model
folder its first part in patches is run, each ONNX file in its session.
"""

import argparse
import resource
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from oarlock.geometry.grid import Grid
from oarlock.inference.models import load
from oarlock.organs.catalogue import OARS
from oarlock.segmentation.manifest import (
    InputSpec,
    Look,
    ModelManifest,
    Normalisation,
    OutputSpec,
    Part,
    PatchSpec,
    Resampling,
    SelfCheck,
    read_manifest,
)
from oarlock.segmentation.segment import Model, segment
from oarlock.segmentation.slabs import Volume

SLICES, SIDE = 186, 512


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patches", description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="a model folder; without one, a pretended network")
    parser.add_argument("--heads", type=int, default=30, help="of the pretended network")
    parser.add_argument("--patch", type=int, default=128, help="side of its patches, in voxels")
    parser.add_argument("--spacing", type=float, default=1.5, help="of its voxels, in mm")
    parser.add_argument("--look", choices=["body", "scan"], default="body")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    hu, grid = scan()
    model = load(read_manifest(options.model), device="auto", threads=options.threads) if options.model else pretended(options)
    before, wall, cpu = peak_mib(), perf_counter(), process_time()
    found = segment(hu, grid, model)
    drawn = sum(1 for oar in found.masks.oars if found.masks.crop(oar) is not None)
    print(f"{model.manifest.name}, {SIDE} x {SIDE} x {SLICES}: {perf_counter() - wall:.0f} s, {process_time() - cpu:.0f} CPU s")
    print(
        f"{drawn} organs drawn; peak {peak_mib():.0f} MiB; {before:.0f} MiB with the scan and the model, before the first patch"
    )


def scan() -> tuple[np.ndarray, Grid]:
    """A head and shoulders of water in air.

    Voxels of 0.98 × 0.98 × 2.5 mm.
    """
    y, x = np.ogrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    hu = np.full((SLICES, SIDE, SIDE), -1000, np.int16)
    for z, plane in enumerate(hu):
        wide = 0.85 if z < SLICES // 3 else 0.35
        plane[(x / wide) ** 2 + (y / 0.45) ** 2 < 1] = 40
    origins = np.array([[-250.0, -250.0, 2.5 * z] for z in range(SLICES)])
    return hu, Grid(SIDE, SIDE, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 0.977, 0.977)


def pretended(options: argparse.Namespace) -> Model:
    """A network whose heads win in turn.

    Each of the 21 organs is one of them.
    """
    patch, heads = options.patch, options.heads
    part = Part(
        name="pretended",
        path=Path("pretended.onnx"),
        sha256="0" * 64,
        look=Look(options.look),
        input=InputSpec("patch", (options.spacing,) * 3, (patch, patch), 1, -1000.0, patch),
        output=OutputSpec("logits", 1, (patch,) * 3),
        oars=OARS,
        thresholds=(0.5,) * len(OARS),
        self_check=SelfCheck(patch, (patch, patch), (0.0,) * heads, 0.05),
        patches=PatchSpec(
            order=(0, 1, 2),
            flipped=(False, True, True),
            step=0.5,
            mirror=(),
            regions=False,
            values=tuple(range(heads)),
            labels=tuple((1 + i % (heads - 1),) for i in range(len(OARS))),
            normalisation=Normalisation("ct", -1000.0, 1000.0, 0.0, 300.0),
            resampling=Resampling(3),
            resampling_back=Resampling(1),
        ),
    )
    bands = np.arange(patch) * heads // patch
    answer = np.zeros((1, heads, patch, patch, patch), np.float32)
    answer[0, bands, np.arange(patch)] = 1.0

    def network(_: Volume) -> Volume:
        return answer

    owners = dict.fromkeys(OARS, part.name)
    manifest = ModelManifest(f"{heads} heads, patches of {patch}", "", "0" * 64, "", "", (part,), owners, {}, {}, ())
    return Model(manifest, {part.name: network}, "cpu")


def peak_mib() -> float:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
