"""The contours released with the paper (github.com/google-deepmind/tcia-ct-scan-dataset, CC BY 4.0).

21 OARs, two raters.

``SPLIT/RATER/CASE/ORGAN.nrrd``: uint8 0 or 1, x fastest, x to the patient's left, y to the back, z to the head; some files
write underscores for hyphens. The CT is not part of the release.
"""

import gzip
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from oarlock.organs.catalogue import OARS

RATERS: Final = ("oncologist", "radiographer")


@dataclass(frozen=True, slots=True)
class NRRDMask:
    """One organ: its mask and its spacing.

    Both (z, y, x); the spacing in mm.
    """

    mask: npt.NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]


def find_case(root: Path, case: str, rater: str) -> Path:
    """The folder of a case as one rater drew it.

    :raises FileNotFoundError: if neither split holds it.
    """
    for folder in sorted(root.glob(f"*/{rater}/{case}")):
        return folder
    raise FileNotFoundError(f"no contours of {case} by the {rater} below {root}")


def read_case(root: Path, case: str, rater: str, organs: Collection[str] | None = None) -> dict[str, NRRDMask]:
    """What one rater drew, by the name of the OAR.

    Of some OARs or of all; an empty file is an organ that was not drawn.
    """
    folder = find_case(root, case, rater)
    found = {}
    for oar in [oar for oar in OARS if organs is None or oar.name in organs]:
        for name in (oar.paper_name, oar.paper_name.replace("-", "_")):
            if (folder / f"{name}.nrrd").is_file():
                organ = read_nrrd(folder / f"{name}.nrrd")
                if organ.mask.any():
                    found[oar.name] = organ
    return found


def read_nrrd(path: Path) -> NRRDMask:
    """A uint8 NRRD volume with an attached header, raw or gzip.

    Axes along x, y, z (nrrd format, version 5).

    :raises ValueError: for any other kind of NRRD.
    """
    header, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode("latin-1").splitlines()[1:] if ": " in line)
    if fields.get("type") not in ("uint8", "uchar", "unsigned char") or fields.get("dimension") != "3":
        raise ValueError(f"{path.name} is not a three-dimensional uint8 NRRD")
    if fields["encoding"] in ("gzip", "gz"):
        body = gzip.decompress(body)
    elif fields["encoding"] != "raw":
        raise ValueError(f"{path.name} has the encoding {fields['encoding']}, not raw or gzip")
    x, y, z = (int(size) for size in fields["sizes"].split())
    return NRRDMask(np.frombuffer(body, np.uint8).reshape(z, y, x).astype(np.bool_), _spacing(fields["space directions"]))


def _spacing(directions: str) -> tuple[float, float, float]:
    """From "(0.98,0,0) (0,0.98,0) (0,0,2.5)" to (z, y, x) in mm."""
    vectors = [[float(value) for value in vector.split(",")] for vector in directions.strip("()").split(") (")]
    x_mm, y_mm, z_mm = (float(np.linalg.norm(vector)) for vector in vectors)
    return z_mm, y_mm, x_mm
