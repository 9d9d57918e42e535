"""An imported network against nnU-Net's own predictor, voxel by voxel."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model_export.imports.plans import Results, build_network
from model_export.imports.refusals import CannotImport
from model_export.imports.scan import Scan
from oarlock.arrays import FloatArray
from oarlock.inference.network import Folds
from oarlock.segmentation.manifest import Part
from oarlock.segmentation.patches import logits_in_patches, painted
from oarlock.segmentation.resampling import ModelInput, to_own_grid
from oarlock.segmentation.segment import Model

LARGEST_SHARE: Final = 5e-4
"""Of the voxels that may have another label than nnU-Net gives them."""

_LEAST_VOXELS: Final = 10

LARGEST_MARGIN: Final = 0.01
"""Of a logit: a voxel with another label must be undecided by no more than this."""


@dataclass(frozen=True)
class Comparison:
    """Two label maps of one scan.

    :ivar differing: voxels of another label.
    :ivar largest_margin: by how much the label of such a voxel wins in ours, in logits; 0 where none differs.
    :ivar drawn: voxels to which the other runtime gives a label other than 0.
    """

    with_name: str
    voxels: int
    drawn: int
    differing: int
    largest_margin: float

    def check(self) -> None:
        """Check that the two agree but for rounding.

        :raises CannotImport: with the figures.
        """
        if self.differing > LARGEST_SHARE * self.voxels or self.largest_margin > LARGEST_MARGIN:
            raise CannotImport(f"it does not draw what its own runtime draws: {self}")

    def __str__(self) -> str:
        return (
            f"{self.with_name} gives {self.differing} of {self.voxels} voxels another label ({self.drawn} are drawn), "
            f"none decided by more than {self.largest_margin:.4f} of a logit"
        )

    def to_toml(self) -> str:
        """The ``[results]`` of a manifest."""
        return (
            f'\n[results]\ncompared_with = "{self.with_name}"\nvoxels = {self.voxels}\ndrawn = {self.drawn}\n'
            f"differing = {self.differing}\nlargest_margin_logits = {round(self.largest_margin, 5)}\n"
        )


@dataclass(frozen=True, eq=False)
class Drawn:
    """The labels that a model gives a scan, in nnU-Net's own arithmetic.

    :ivar fed: the CT in canonical axes.
    :ivar labels: (z, y, x) on its grid.
    :ivar margin: (z, y, x) in logits, by which each label wins.
    """

    fed: ModelInput
    labels: npt.NDArray[np.int64]
    margin: npt.NDArray[np.float32]

    def middle_mm(self, labels: Collection[int]) -> FloatArray | None:
        """The middle (x, y, z) of what has some labels.

        :returns: None if that is less than ``_LEAST_VOXELS``.
        """
        indices = np.argwhere(np.isin(self.labels, list(labels)))
        if len(indices) < _LEAST_VOXELS:
            return None
        return np.asarray(self.fed.grid.to_points(indices.astype(np.float64)).mean(axis=0))

    def middles_mm(self, of_names: Mapping[str, Collection[int]]) -> dict[str, FloatArray]:
        """The middle of what each name stands for, where drawn."""
        found = ((name, self.middle_mm(labels)) for name, labels in of_names.items())
        return {name: middle for name, middle in found if middle is not None}


def draw(model: Model, scan: Scan) -> Drawn:
    """What the first part of a model gives the whole scan."""
    part = model.manifest.parts[0]
    fed = to_own_grid(scan.hu, scan.grid, part.input.padding_hu)
    return Drawn(fed, *label_map(model, part, fed.volume, fed.grid.spacing_mm))


def draw_turned(model: Model, drawn: Drawn, axes: tuple[int, ...]) -> Drawn:
    """What the first part gives the mirrored scan, mirrored back.

    Mirrored along some patient axes.

    Patches lie side by side and no mirror images are averaged: it says whether organs are found, not exactly where.

    :param axes: of (z, y, x); none for the scan as it is.
    """
    part = model.manifest.parts[0]
    assert part.patches is not None
    quick = replace(part, patches=replace(part.patches, step=1.0, mirror=()))
    mirrored = np.ascontiguousarray(np.flip(drawn.fed.volume, axes))
    labels, margin = label_map(model, quick, mirrored, drawn.fed.grid.spacing_mm)
    return Drawn(drawn.fed, np.flip(labels, axes), np.flip(margin, axes))


def compare(results: Results, model: Model, drawn: Drawn) -> Comparison:
    """nnU-Net's own predictor on the same scan.

    :raises CannotImport: if nnU-Net is not installed.
    """
    if find_spec("nnunetv2") is None:
        raise CannotImport("nnunetv2 is not installed, so nothing can be compared: install it, or give --no-compare")
    theirs = predicted_by_nnunet(results, model.manifest.parts[0], drawn.fed.volume, drawn.fed.grid.spacing_mm)
    differ = drawn.labels != theirs
    largest = float(drawn.margin[differ].max(initial=0.0))
    return Comparison(f"nnU-Net {version('nnunetv2')}", differ.size, int(np.count_nonzero(theirs)), int(differ.sum()), largest)


def label_map(
    model: Model, part: Part, hu: npt.NDArray[np.float32], spacing_mm: tuple[float, float, float], *, half: bool = True
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Label (z, y, x) of each voxel, and its deciding margin.

    In canonical axes; margins are in logits.

    :param half: whether each fold's sums are rounded to 16 bits, as nnU-Net rounds them.
    """
    spec, predictor = part.patches, model.predictors[part.name]
    assert spec is not None
    folds = predictor.each if isinstance(predictor, Folds) and half else [predictor]
    labels, margins = np.zeros(hu.shape, np.int64), np.full(hu.shape, np.inf, np.float32)
    slices = zip(*(logits_in_patches(hu, spacing_mm, fold, part, half=half) for fold in folds), strict=True)
    for of_each in slices:
        z, box, _ = of_each[0]
        total = np.sum([logits.astype(np.float32) for _, _, logits in of_each], axis=0) / np.float32(len(folds))
        logits = total.astype(of_each[0][2].dtype)
        labels[z, *box] = painted(logits, spec)
        ordered = np.abs(logits) if spec.regions else np.sort(logits, axis=0)
        margins[z, *box] = ordered.min(axis=0) if spec.regions else ordered[-1] - ordered[-2]
    return labels, margins


def predicted_by_nnunet(
    results: Results, part: Part, hu: npt.NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> npt.NDArray[np.int64]:
    """(z, y, x) labels in canonical axes from nnU-Net's own predictor.

    It is given the network that was read here without a pickle.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    spec = part.patches
    assert spec is not None
    folds: list[Any] = list(results.folds.values())
    plans = PlansManager(dict(results.plans))
    predictor = nnUNetPredictor(
        tile_step_size=spec.step,
        use_mirroring=bool(spec.mirror),
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        build_network(results, folds[0]),
        plans,
        plans.get_configuration(results.configuration_name),
        folds,
        dict(results.dataset),
        results.trainer,
        results.mirror or None,
    )
    # the files' axes: the network's before nnU-Net transposes them
    order = [spec.order[results.transposed.index(axis)] for axis in range(3)]
    flipped = tuple(axis for axis in range(3) if spec.flipped[axis])
    as_file = np.flip(hu, flipped).transpose(order)
    found = predictor.predict_single_npy_array(
        np.ascontiguousarray(as_file)[None], {"spacing": [spacing_mm[axis] for axis in order]}
    )
    back = np.asarray(found).astype(np.int64).transpose([order.index(axis) for axis in range(3)])
    turned: npt.NDArray[np.int64] = np.flip(back, flipped)
    return turned
