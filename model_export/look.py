"""Pictures of what a checkpoint draws on a real series.

In all three planes, for a person's eye, on CT of full extent.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from model_export.augment import F32
from model_export.datasets.training_file import AIR_HU
from model_export.evaluate import SLAB_SLICES, THRESHOLD
from model_export.network import Network
from model_export.sampling import GridConfig
from model_export.served import Served
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.geometry.body import body_mask, within_body
from oarlock.organs.catalogue import OARS
from oarlock.segmentation.manifest import InputSpec
from oarlock.segmentation.resampling import to_model_grid
from oarlock.segmentation.slabs import predict_in_slabs

WINDOW_HU: Final = (-160.0, 240.0)

Mask = npt.NDArray[np.bool_]


def look(
    network: Network, grid: GridConfig, series: Path, path: Path, thresholds: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """Write a PNG, and return the volume of each OAR in cm³."""
    ct_hu = read_on_grid(series, input_of(grid))
    masks = predict_volume(network, ct_hu, grid, thresholds)
    draw(ct_hu, masks, grid, path)
    voxel_cm3 = float(np.prod(grid.spacing_mm)) / grid.upscale**2 / 1000.0
    return {oar.name: round(float(mask.sum()) * voxel_cm3, 2) for oar, mask in zip(OARS, masks, strict=True)}


def input_of(grid: GridConfig) -> InputSpec:
    """What the worker is told to feed a network of this grid."""
    return InputSpec("ct_hu", grid.spacing_mm, (grid.size, grid.size), grid.context_slices, AIR_HU)


def read_on_grid(series: Path, spec: InputSpec) -> F32:
    """The CT of a folder of DICOM files on the network's grid.

    (z, y, x) HU, as the worker prepares it.
    """
    ct = read_ct_series(check_headers(sorted(path for path in series.iterdir() if path.is_file())))
    return to_model_grid(ct.hu, ct.header.grid, spec).volume


def slabs_of_series(series: Path, spec: InputSpec) -> F32:
    """The same in slabs of `SLAB_SLICES` and their context.

    (N, 1, Z, Y, X) HU; what is over at the head end is left out.
    """
    volume, length = read_on_grid(series, spec), SLAB_SLICES + spec.context_slices - 1
    return np.stack([volume[first : first + length] for first in range(0, len(volume) - length + 1, SLAB_SLICES)])[:, None]


def predict_volume(
    network: Network, ct_hu: F32, grid: GridConfig, thresholds: Mapping[str, float] = MappingProxyType({})
) -> Mask:
    """Masks of a whole volume.

    (OARs, Z, Y · upscale, X · upscale).
    """
    served = Served(network).eval()
    limits = np.array([thresholds.get(oar.name, THRESHOLD) for oar in OARS], np.float32)[:, None, None, None]

    def predictor(slab: F32) -> F32:
        with torch.no_grad():
            found: F32 = served(torch.from_numpy(slab)).numpy()
        return found

    slabs = within_body(predict_in_slabs(ct_hu, predictor, input_of(grid), slab=SLAB_SLICES), body_mask(ct_hu))
    return np.concatenate([probabilities > limits for _, probabilities in slabs], axis=1)


def draw(ct_hu: F32, masks: Mask, grid: GridConfig, path: Path) -> None:
    """Axial slices from foot to head, then coronal and sagittal ones.

    The patient's right is on the left.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(4, 6, figsize=(24, 17), facecolor="black")
    for axis, (picture, organs, aspect) in zip(axes.flat, _planes(ct_hu, masks, grid), strict=True):
        rows, columns = organs.shape[1:]
        low, high = WINDOW_HU
        axis.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=(0, columns, rows, 0), aspect=aspect)
        for oar, mask in zip(OARS, organs, strict=True):
            if mask.any() and not mask.all():
                colour = [tuple(value / 255 for value in oar.colour)]
                axis.contour(np.arange(columns) + 0.5, np.arange(rows) + 0.5, mask, [0.5], colors=colour, linewidths=1.2)
        axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=50)
    plt.close(figure)


def _planes(ct_hu: F32, masks: Mask, grid: GridConfig) -> Iterator[tuple[Any, Mask, float]]:
    """(CT picture, masks of the same plane at the output's resolution, height of a voxel over its width)."""
    for z in np.linspace(0, len(ct_hu) - 1, 20)[1:-1].round().astype(int)[::-1]:
        yield ct_hu[z], masks[:, z], 1.0
    tall = grid.spacing_mm[0] / (grid.spacing_mm[1] / grid.upscale)
    rows, columns = masks.shape[2:]
    for offset_mm in (-50.0, -20.0, 20.0):
        y = rows // 2 + round(offset_mm / grid.spacing_mm[1] * grid.upscale)
        yield ct_hu[::-1, y // grid.upscale], masks[:, ::-1, y], tall
    for offset_mm in (-40.0, 0.0, 40.0):
        x = columns // 2 + round(offset_mm / grid.spacing_mm[2] * grid.upscale)
        yield ct_hu[::-1, :, x // grid.upscale], masks[:, ::-1, :, x], tall
