"""Where a shipped model sees an organ.

Its centre, for the first landmarks of a scan without labels.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from model_export.augment import AugmentConfig
from model_export.datasets.training_file import Case, to_codes
from model_export.evaluate import to_label_grid
from model_export.prepare import known_box
from model_export.sampling import GridConfig, no_deformation, sample_slab
from model_export.transferred.scans import F32, NATIVE_PER_VOXEL, Mask, Point, Scan
from oarlock.geometry.components import largest_piece
from oarlock.segmentation.manifest import Part, read_manifest

SLAB_SLICES: Final = 32
SURE: Final = 0.2
"""A landmark needs no border, only a middle: voxels from this probability on count, weighted by it."""
BELOW_MM, ABOVE_MM = 60.0, 90.0
"""How much of a scan around its brainstem is asked for: eyes, ears and skull base lie in it."""


class CoarseModel:
    """A model folder, ready to say where organs are."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.part: Part = read_manifest(folder).parts[0]
        self.session: Any = onnxruntime.InferenceSession(str(self.part.path), options, providers=["CPUExecutionProvider"])
        spec = self.part.input
        assert spec.spacing_mm is not None and spec.size_yx is not None  # noqa: PT018 - a coarse model has a grid of its own
        self.grid = GridConfig(
            spacing_mm=spec.spacing_mm,
            size=spec.size_yx[0],
            context_slices=spec.context_slices,
            upscale=self.part.output.upscale,
        )

    def centres(self, scan: Scan) -> dict[str, Point]:
        """The centre of each organ that is seen.

        By name, (x, y, z) in mm.
        """
        return self.draw(scan).centres

    def draw(self, scan: Scan, *, whole: bool = False) -> "CoarseDrawing":
        """What the model says of a scan.

        Around its brainstem, or of all that is known of it.
        """
        box = known_box(scan.known) if whole else interesting_box(scan)
        case = _unlabelled_case(scan, box)
        return CoarseDrawing(self, scan, box, case, self._draw(case))

    def _draw(self, case: Case) -> F32:
        slices = int(np.ceil(case.ct.shape[0] * case.spacing_mm[0] / self.grid.spacing_mm[0]))
        slab = sample_slab(
            case,
            self.grid,
            slices=slices,
            middle_mm=case.ct.shape[0] * case.spacing_mm[0] / 2,
            deformation=no_deformation(),
            augment=AugmentConfig(),
            rng=np.random.default_rng(0),  # asked for, but nothing is random without augmentation
        ).ct_hu.numpy()
        parts = []
        for first in range(0, slices, SLAB_SLICES):
            part = slab[first : min(first + SLAB_SLICES, slices) + self.grid.context_slices - 1]
            parts.append(self.session.run([self.part.output.name], {self.part.input.name: part[None, None]})[0][0])
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class CoarseDrawing:
    """The model's probabilities around a part of a scan.

    (OARs, Z, Y, X) on its own grid.
    """

    model: CoarseModel
    scan: Scan
    box: tuple[slice, slice, slice]
    case: Case
    found: F32

    @cached_property
    def centres(self) -> dict[str, Point]:
        """The centre of the largest piece of each organ that is seen.

        By name, (x, y, z) in mm.
        """
        centres = {}
        for oar, probability in zip(self.model.part.oars, self.found, strict=True):
            mass = np.where(largest_piece(probability >= SURE), probability, 0.0).astype(np.float32)
            if mass.any():
                centres[oar.name] = _placed(mass, self.case, self.model.grid, self.box, self.scan)
        return centres

    def native_mask(self, organ: str) -> Mask:
        """An organ's largest piece on the native grid (z, 4y, 4x).

        At the manifest's threshold, of the whole scan.
        """
        part = self.model.part
        index = [oar.name for oar in part.oars].index(organ)
        return largest_piece(self.native_probability(organ) >= part.thresholds[index])

    def native_probability(self, organ: str) -> F32:
        """An organ on the native grid (z, 4y, 4x).

        Of the whole scan; 0 where the model was not asked.
        """
        index = [oar.name for oar in self.model.part.oars].index(organ)
        fine = replace(
            self.case, labels=np.zeros((1, *self._native_shape(self.case.ct.shape)), np.uint8), label_factor=NATIVE_PER_VOXEL
        )
        drawn = to_label_grid(torch.from_numpy(self.found[index : index + 1]), fine, self.model.grid)[0]
        out = np.zeros(self._native_shape(self.scan.hu.shape), np.float32)
        z, y, x = self.box
        out[z, _finer(y), _finer(x)] = drawn
        return out

    @staticmethod
    def _native_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
        return shape[0], shape[1] * NATIVE_PER_VOXEL, shape[2] * NATIVE_PER_VOXEL


def _finer(span: slice) -> slice:
    return slice(span.start * NATIVE_PER_VOXEL, span.stop * NATIVE_PER_VOXEL)


def interesting_box(scan: Scan) -> tuple[slice, slice, slice]:
    """The known part of a scan.

    Along z only around the brainstem where one is drawn.
    """
    z, y, x = known_box(scan.known)
    if "Brainstem" in scan.masks:
        slices = np.flatnonzero(scan.masks["Brainstem"].any(axis=(1, 2)))
        middle, step = (slices[0] + slices[-1]) / 2, scan.spacing_mm[0]
        z = slice(max(z.start, int(middle - BELOW_MM / step)), min(z.stop, int(middle + ABOVE_MM / step) + 1))
    return z, y, x


def _unlabelled_case(scan: Scan, box: tuple[slice, slice, slice]) -> Case:
    return Case(
        name=scan.name,
        source="openkbp",
        split=scan.split,
        spacing_mm=scan.spacing_mm,
        ct=to_codes(scan.hu[box], scan.known[box]),
        labels=np.zeros((1, *scan.hu[box].shape), np.uint8),
        label_factor=1,
        label_full=1,
        channels=(0,),
        labelled_slices=((0, scan.hu[box].shape[0] - 1),),
    )


def _placed(mass: F32, case: Case, grid: GridConfig, box: tuple[slice, slice, slice], scan: Scan) -> Point:
    """Centre of mass on the model's grid to mm in the scan's frame."""
    middles = (case.ct.shape[0] * case.spacing_mm[0] / 2, *case.body_centre_mm)
    place = []
    for axis, (middle, span, spacing) in enumerate(zip(middles, box, scan.spacing_mm, strict=True)):
        profile = mass.sum(axis=tuple(other for other in range(3) if other != axis))
        index = float(np.dot(profile, np.arange(len(profile))) / profile.sum())
        step = grid.spacing_mm[axis] / (1 if axis == 0 else grid.upscale)
        from_middle = (index - (len(profile) - 1) / 2) * step
        place.append(middle + from_middle + (span.start - 0.5) * spacing)
    return place[2], place[1], place[0]
