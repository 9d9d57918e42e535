"""A public scan as registration needs it.

HU, what is known of it, and its place in millimetres.

Points are (x, y, z) in mm from the centre of voxel 0 of the whole public grid, x to the patient's left, y to the back, z to the
head. SimpleITK's images of a scan use the same frame.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from model_export.datasets.openkbp import RAW_OFFSET_HU, OpenKBPPatient, read_patient
from model_export.datasets.training_file import AIR_HU

NATIVE_PER_VOXEL: Final = 4
"""OpenKBP took every fourth row and column: a voxel lies over four by four pixels of the released contours."""

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Point: TypeAlias = tuple[float, float, float]
Image: TypeAlias = Any  # SimpleITK's; the library has types of its own for nothing


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan: HU, its known part, spacing and drawn organs.

    HU (z, y, x) with air where the CT is unknown; spacing (z, y, x) in mm.
    """

    name: str
    split: str
    hu: F32
    known: Mask
    spacing_mm: tuple[float, float, float]
    masks: dict[str, Mask]

    @property
    def native_mm(self) -> tuple[float, float, float]:
        """Spacing (z, y, x) of the released contours' pixels, in mm."""
        z, y, x = self.spacing_mm
        return z, y / NATIVE_PER_VOXEL, x / NATIVE_PER_VOXEL

    @property
    def native_known(self) -> Mask:
        """What is known, on the released contours' pixels."""
        return self.known.repeat(NATIVE_PER_VOXEL, axis=1).repeat(NATIVE_PER_VOXEL, axis=2)

    def mirrored(self) -> "Scan":
        """The mirror image, without organs."""
        return Scan(self.name, self.split, self.hu[:, :, ::-1].copy(), self.known[:, :, ::-1].copy(), self.spacing_mm, {})


def read_scan(path: Path) -> Scan:
    """One scan of OpenKBP."""
    return to_scan(read_patient(path))


def to_scan(patient: OpenKBPPatient) -> Scan:
    """The patient's raw values as HU."""
    known = patient.raw > 0
    hu = np.where(known, patient.raw.astype(np.float32) - RAW_OFFSET_HU, AIR_HU).astype(np.float32)
    return Scan(patient.name, patient.split, hu, known, patient.spacing_mm, patient.masks)


def centre_mm(mask: npt.NDArray[Any], spacing_mm: tuple[float, float, float], factor: int = 1) -> Point:
    """Centre of mass.

    `factor` voxels of the mask make one voxel of the scan along y and along x.
    """
    index = np.nonzero(mask)
    weights = np.asarray(mask[index], np.float64)
    z, y, x = (float(np.dot(places, weights) / weights.sum()) for places in index)
    return to_mm(x, factor) * spacing_mm[2], to_mm(y, factor) * spacing_mm[1], z * spacing_mm[0]


def to_mm(index: float, factor: int) -> float:
    """An index of finer voxels, in voxels of the scan.

    They are `factor` times finer.
    """
    return (index + 0.5) / factor - 0.5


def to_image(
    array: npt.NDArray[Any], spacing_mm: tuple[float, float, float], *, first: Point = (0, 0, 0), factor: int = 1
) -> Image:
    """SimpleITK's image of an array (z, y, x).

    :param first: index (z, y, x) of the array's first voxel in the whole grid, in the array's own voxels.
    :param factor: voxels of the array to a voxel of the scan along y and along x.
    """
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    z_mm, y_mm, x_mm = spacing_mm
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing((x_mm / factor, y_mm / factor, z_mm))
    image.SetOrigin((to_mm(first[2], factor) * x_mm, to_mm(first[1], factor) * y_mm, first[0] * z_mm))
    return image
