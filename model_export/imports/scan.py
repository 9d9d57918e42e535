"""A scan to check an imported model on.

It is a DICOM series, or one image file that says how it lies.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_export.imports.refusals import CannotImport
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.errors import OarlockError
from oarlock.geometry.grid import Grid


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT.

    :ivar hu: (z, y, x) on ``grid``.
    """

    hu: npt.NDArray[np.int16]
    grid: Grid


def read_scan(path: Path) -> Scan:
    """A folder of DICOM files, or an image file (NIfTI, NRRD, MetaImage).

    :raises CannotImport: if it is not a CT that can be read.
    """
    if path.is_dir():
        try:
            ct = read_ct_series(check_headers(sorted(file for file in path.iterdir() if file.is_file())))
        except OarlockError as error:
            raise CannotImport(f"{path} is not a CT series: {error}") from error
        return Scan(ct.hu, ct.header.grid)
    values, grid = read_image(path)
    return Scan(np.round(values).clip(-32768, 32767).astype(np.int16), grid)


def read_image(path: Path) -> tuple[npt.NDArray[np.float32], Grid]:
    """The values (z, y, x) of an image file, and its grid.

    :raises CannotImport: if it cannot be read, or does not have three dimensions.
    """
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise CannotImport(f"{path} cannot be read") from error
    if image.GetDimension() != 3:
        raise CannotImport(f"{path} does not have three dimensions")
    values = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    directions = np.array(image.GetDirection()).reshape(3, 3)  # columns: the way of x, y and z
    step = np.array(image.GetSpacing())
    origins = np.array(image.GetOrigin()) + np.arange(len(values))[:, None] * step[2] * directions[:, 2]
    if np.linalg.det(directions) < 0:  # slices run against the normal of their plane: from the last to the first
        values, origins = values[::-1], origins[::-1]
    rows, columns = values.shape[1:]
    return values, Grid(rows, columns, origins, directions[:, 0], directions[:, 1], float(step[1]), float(step[0]))
