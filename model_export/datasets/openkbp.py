"""OpenKBP (Babier et al. 2021, github.com/ababier/open-kbp, MIT).

Head and neck CT on 128³ grids with a few OARs.

A patient is a folder of sparse CSV files, or one ``.npz`` with the same content. The raw order is [y, x, z from head to foot];
everything here returns (z from foot to head, y from front to back, x from the patient's right to left). The CT is known only
near the targets and OARs: raw 0 is unknown, not air. The source does not state the raw offset; with 1000 the median inside the
brain is 35 to 52 HU, as it should be.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SIDE: Final = 128
RAW_OFFSET_HU: Final = 1000
OAR_NAMES: Final = {
    "Brainstem": "Brainstem",
    "SpinalCord": "SpinalCord",
    "LeftParotid": "Parotid_L",
    "RightParotid": "Parotid_R",
    "Mandible": "Bone_Mandible",
}
"""OpenKBP's name to the house's; its larynx and oesophagus are not among the 21."""


@dataclass(frozen=True, slots=True)
class OpenKBPPatient:
    """One patient: raw CT, spacing and the masks that were drawn.

    The CT is (z, y, x) int16 with 0 for unknown, the spacing (z, y, x) in mm.
    """

    name: str
    split: str
    raw: npt.NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    masks: dict[str, npt.NDArray[np.bool_]]


def find_patients(root: Path) -> list[Path]:
    """Every patient below a folder.

    A clone of the public repository, or a folder of ``SPLIT/pt_N.npz`` files.
    """
    provided = root / "provided-data"
    if provided.is_dir():
        return [folder for folder in sorted(provided.glob("*-pats/pt_*")) if (folder / "ct.csv").is_file()]
    return sorted(root.glob("*/pt_*.npz"))


def read_patients(root: Path) -> Iterator[OpenKBPPatient]:
    """All of them, one after the other."""
    return map(read_patient, find_patients(root))


def read_patient(path: Path) -> OpenKBPPatient:
    """One patient that was found.

    A folder of sparse CSV files, as the public layout has it, or one packed file.
    """
    return read_public_patient(path) if path.is_dir() else read_packed_patient(path)


def read_public_patient(folder: Path) -> OpenKBPPatient:
    """One patient in the public layout: a folder of sparse CSV files."""
    indices, values = _read_sparse(folder / "ct.csv")
    raw = np.zeros(SIDE**3, np.int16)
    raw[indices] = values
    spacing = [float(line) for line in (folder / "voxel_dimensions.csv").read_text().split()]
    masks = {}
    for theirs, ours in OAR_NAMES.items():
        if (folder / f"{theirs}.csv").is_file():
            flat = np.zeros(SIDE**3, np.bool_)
            flat[_read_sparse(folder / f"{theirs}.csv")[0]] = True
            masks[ours] = _to_zyx(flat)
    return OpenKBPPatient(
        name=folder.name,
        split=folder.parent.name.removesuffix("-pats"),
        raw=_to_zyx(raw),
        spacing_mm=(spacing[2], spacing[1], spacing[0]),
        masks=masks,
    )


def read_packed_patient(path: Path) -> OpenKBPPatient:
    """One patient as an ``.npz``.

    ``ct``, ``spacing_mm`` (x, y, z) and one packed bit mask for each organ.
    """
    with np.load(path) as arrays:
        x_mm, y_mm, z_mm = (float(value) for value in arrays["spacing_mm"])
        masks = {
            ours: _to_zyx(np.unpackbits(arrays[theirs])[: SIDE**3].astype(np.bool_))
            for theirs, ours in OAR_NAMES.items()
            if theirs in arrays
        }
        return OpenKBPPatient(
            name=path.stem, split=path.parent.name, raw=_to_zyx(arrays["ct"]), spacing_mm=(z_mm, y_mm, x_mm), masks=masks
        )


def _read_sparse(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]:
    """Flat indices, and the values beside them (0 where the file has none: a mask)."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    indices = np.array([int(row[0]) for row in rows], np.int64)
    values = np.array([round(float(row[1])) if row[1] else 0 for row in rows], np.int16)
    return indices, values


def _to_zyx(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[y, x, z head to foot] to (z foot to head, y, x)."""
    return np.ascontiguousarray(raw.reshape(SIDE, SIDE, SIDE).transpose(2, 0, 1)[::-1])
