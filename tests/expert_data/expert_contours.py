"""Reads the expert contours that were released with the paper (google-deepmind/tcia-ct-scan-dataset), in their public layout.

FOLDER/{test,validation}/{oncologist,radiographer}/CASE/ORGAN.nrrd: one gzipped uint8 mask an organ, x running fastest.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from zlib_ng import gzip_ng

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import Crop, OARMasks
from oarlock.organs.catalogue import OAR, OARS

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

    def crops(self, rater: str) -> tuple[dict[OAR, Crop], Grid]:
        """The organs that one rater drew, each in its box."""
        read = [read_nrrd(self.path(rater, oar.paper_name)) for oar in OARS]
        return {oar: crop for oar, (crop, _) in zip(OARS, read, strict=True) if crop is not None}, read[0][1]

    def masks(self, rater: str) -> tuple[OARMasks, Grid]:
        """All 21 organs of one rater."""
        crops, grid = self.crops(rater)
        masks = OARMasks.empty(OARS, grid.shape)
        for oar, crop in crops.items():
            masks.put_inside(oar, *crop)
        return masks, grid


def cases(folder: Path) -> Iterator[Case]:
    """All scans that both raters drew on, in the order of their names."""
    for path in sorted(folder.glob(f"*/{RATERS[0]}/*")):
        split = path.parents[1].name
        if (folder / split / RATERS[1] / path.name).is_dir():
            yield Case(split, path.name, folder)


def read_nrrd(path: Path) -> tuple[Crop | None, Grid]:
    """Mask in its box (None if it is empty) and grid of a gzipped three-dimensional uint8 NRRD, its axes along the patient's.

    :raises ValueError: for any other file.
    """
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
    return _crop(body, (slices, rows, columns)), grid


def _crop(packed: bytes, shape: tuple[int, int, int]) -> Crop | None:
    """The box of a gzipped mask: it is unpacked slice by slice, and empty slices are not kept."""
    found: dict[int, npt.NDArray[np.bool_]] = {}
    with gzip_ng.open(BytesIO(packed)) as file:
        for z in range(shape[0]):
            image = np.frombuffer(file.read(shape[1] * shape[2]), dtype=np.bool_)
            if image.any():
                found[z] = image.reshape(shape[1:])
    if not found:
        return None
    drawn = np.logical_or.reduce(list(found.values()))
    y, x = (_extent(drawn.any(axis=axis)) for axis in (1, 0))
    z = slice(min(found), max(found) + 1)
    empty = np.zeros(shape[1:], dtype=np.bool_)
    return (z, y, x), np.stack([found.get(i, empty)[y, x] for i in range(z.start, z.stop)])


def _extent(hit: npt.NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(hit)
    return slice(int(places[0]), int(places[-1]) + 1)


def _vectors(text: str) -> list[list[float]]:
    return [[float(number) for number in vector.split(",")] for vector in re.findall(r"\(([^)]*)\)", text)]
