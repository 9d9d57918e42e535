"""Reads the expert contours that were released with the paper (google-deepmind/tcia-ct-scan-dataset), in their public layout.

FOLDER/{test,validation}/{oncologist,radiographer}/CASE/ORGAN.nrrd: one gzipped uint8 mask an organ, x running fastest.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from oarlock.geometry import Grid
from oarlock.masks import OARMasks
from oarlock.oars import OARS

RATERS = ("oncologist", "radiographer")


@dataclass(frozen=True)
class Case:
    """One scan of the release."""

    split: str
    name: str
    folder: Path

    def path(self, rater: str, organ: str) -> Path:
        """The file of one organ; some files of the release use underscores."""
        folder = self.folder / self.split / rater / self.name
        plain = folder / f"{organ}.nrrd"
        return plain if plain.exists() else folder / f"{organ.replace('-', '_')}.nrrd"

    def masks(self, rater: str) -> tuple[OARMasks, Grid]:
        """All 21 organs of one rater."""
        masks, grid = None, None
        for oar in OARS:
            voxels, grid = read_nrrd(self.path(rater, oar.paper_name))
            if masks is None:
                masks = OARMasks.empty(OARS, grid.shape)
            for z in range(len(voxels)):
                if voxels[z].any():
                    masks.bits[z] |= np.where(voxels[z], masks.bit(oar), np.uint32(0))
        assert masks is not None
        assert grid is not None
        return masks, grid


def cases(folder: Path) -> Iterator[Case]:
    """All scans that both raters drew on, in the order of their names."""
    for path in sorted(folder.glob(f"*/{RATERS[0]}/*")):
        split = path.parents[1].name
        if (folder / split / RATERS[1] / path.name).is_dir():
            yield Case(split, path.name, folder)


def read_nrrd(path: Path) -> tuple[npt.NDArray[np.uint8], Grid]:
    """A gzipped three-dimensional uint8 NRRD whose axes run along the patient's: (z, y, x) voxels and their grid."""
    header, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode("ascii").splitlines() if ": " in line)
    columns, rows, slices = (int(n) for n in fields["sizes"].split())
    directions = np.array(_vectors(fields["space directions"]))
    if (fields["type"], fields["encoding"]) not in {("unsigned char", "gzip"), ("uint8", "gzip")} or np.any(
        directions != np.diag(np.diag(directions))
    ):
        raise ValueError(f"{path.name} is not one of the release's masks")
    origin = np.array(_vectors(fields["space origin"])[0])
    grid = Grid(
        rows=rows,
        columns=columns,
        origins_mm=origin + np.arange(slices)[:, None] * directions[2],
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        row_spacing_mm=directions[1, 1],
        column_spacing_mm=directions[0, 0],
    )
    return np.frombuffer(gzip.decompress(body), dtype=np.uint8).reshape(slices, rows, columns), grid


def _vectors(text: str) -> list[list[float]]:
    return [[float(number) for number in vector.split(",")] for vector in re.findall(r"\(([^)]*)\)", text)]
