"""The one compact file that training reads.

Windowed 8-bit CT, labels as fractions, what is known and what is not.

A case keeps its own grid, cropped to where its CT is known. CT is one byte per voxel: 0 is unknown, 1 to 255 are Hounsfield
units through ``HU_KNOTS`` (4 HU a step in soft tissue, coarser in lung and bone). Labels are one byte per voxel and channel, on
the CT's grid (OpenKBP) or on one that is finer in plane (the released contours, averaged from the native grid): the high and
the low four bits count, for each of two raters, the sub-voxels that lie inside.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from oarlock.geometry.body import BODY_HU
from oarlock.organs.catalogue import OARS

AIR_HU: Final = -1000.0
HU_KNOTS: Final = ((1, -1000.0), (51, -200.0), (201, 400.0), (255, 2000.0))
CHANNEL: Final = {oar.name: index for index, oar in enumerate(OARS)}

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One scan.

    ``ct`` (z, y, x) bytes; ``labels`` (labelled channels, z, y · label_factor, x · label_factor) bytes, ``label_full`` sub-voxels
    to a label voxel; ``channels`` the labelled channels; ``labelled_slices`` the first and last slice, for each, in which its
    absence means absence.

    From these come ``body_centre_mm``, the middle of the body's bounding box in plane (y, x), from the edge of the grid;
    ``shown``, the channels of which at least half lies in the known CT; and ``drawn`` (labelled channels, z), the slices that
    show anything of a channel.
    """

    name: str
    source: str  # "openkbp", or "matched": OpenKBP's CT under the released contours
    split: str  # "train" or "tuning"
    spacing_mm: tuple[float, float, float]
    ct: U8
    labels: U8
    label_factor: int
    label_full: int
    channels: tuple[int, ...]
    labelled_slices: tuple[tuple[int, int], ...]
    body_centre_mm: tuple[float, float] = field(init=False)
    shown: tuple[int, ...] = field(init=False)
    drawn: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what each slab asks for."""
        object.__setattr__(self, "body_centre_mm", body_centre_mm(self.ct, self.spacing_mm))
        object.__setattr__(self, "shown", shown_channels(self.ct, self.labels, self.label_factor, self.channels))
        object.__setattr__(self, "drawn", self.labels.any(axis=(2, 3)))

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Where the CT is known, (z, y, x)."""
        return self.ct > 0

    def hu(self) -> npt.NDArray[np.float32]:
        """CT in HU, unknown voxels as air, (z, y, x)."""
        return HU_OF_CODE[self.ct]

    def with_label(self, oar: str, mask: npt.NDArray[np.bool_], slices: tuple[int, int] | None = None) -> "Case":
        """The case with one more organ labelled.

        (z, y, x) on the CT's grid; in the slices from first to last, or in all.
        """
        fine = mask.repeat(self.label_factor, axis=1).repeat(self.label_factor, axis=2)
        return replace(
            self,
            labels=np.concatenate([self.labels, fine[None].astype(np.uint8) * (17 * self.label_full)]),
            channels=(*self.channels, CHANNEL[oar]),
            labelled_slices=(*self.labelled_slices, slices or (0, self.ct.shape[0] - 1)),
        )

    def fraction_of_label(self, rater: int | None = None) -> npt.NDArray[np.float32]:
        """The share inside, for each of the 256 label bytes.

        Of one rater, or the mean of both.
        """
        high, low = np.divmod(np.arange(256), 16)
        counts = (high + low) / 2 if rater is None else (high, low)[rater]
        return np.clip(counts / self.label_full, 0.0, 1.0).astype(np.float32)


def _hu_of_code() -> npt.NDArray[np.float32]:
    codes, hu = zip(*HU_KNOTS, strict=True)
    table = np.interp(np.arange(256), codes, hu).astype(np.float32)
    table[0] = AIR_HU
    return table


HU_OF_CODE: Final = _hu_of_code()


def to_codes(hu: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> U8:
    """HU to bytes; unknown voxels to 0."""
    codes, knots = zip(*HU_KNOTS, strict=True)
    return np.where(known, np.rint(np.interp(hu, knots, codes)), 0).astype(np.uint8)


def shown_channels(ct: U8, labels: U8, label_factor: int, channels: tuple[int, ...]) -> tuple[int, ...]:
    """The channels that lie at least half in the known CT.

    Half of what is drawn of them.
    """
    known = (ct > 0).repeat(label_factor, axis=1).repeat(label_factor, axis=2)
    shares = [(int((mask & known).sum()), int(mask.sum())) for mask in (labels[index] > 0 for index in range(len(channels)))]
    return tuple(channel for channel, (inside, drawn) in zip(channels, shares, strict=True) if drawn and 2 * inside >= drawn)


def body_centre_mm(ct: U8, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Middle (y, x) of the body in mm from the grid's edge.

    Of the bounding box in plane of all that is denser than fat.
    """
    body = HU_OF_CODE[ct] > BODY_HU
    rows, columns = np.flatnonzero(body.any(axis=(0, 2))), np.flatnonzero(body.any(axis=(0, 1)))
    return float(rows[0] + rows[-1] + 1) / 2 * spacing_mm[1], float(columns[0] + columns[-1] + 1) / 2 * spacing_mm[2]


def write_cases(path: Path, cases: list[Case], provenance: dict[str, Any]) -> None:
    """One compressed ``.npz``; ``provenance`` says what it was made from."""
    arrays, entries = {}, []
    for case in cases:
        arrays[f"{case.name}/ct"] = case.ct
        arrays[f"{case.name}/labels"] = case.labels
        keys = ("name", "source", "split", "spacing_mm", "label_factor", "label_full", "channels", "labelled_slices")
        entries.append({key: getattr(case, key) for key in keys})
    arrays["index"] = np.frombuffer(json.dumps({"cases": entries, "provenance": provenance}).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the keywords for its flags


def read_cases(path: Path, split: str | None = None) -> list[Case]:
    """The cases of one split, or all."""
    with np.load(path) as arrays:
        entries = json.loads(arrays["index"].tobytes())["cases"]
        return [
            _to_case(entry, arrays[f"{entry['name']}/ct"], arrays[f"{entry['name']}/labels"])
            for entry in entries
            if split is None or entry["split"] == split
        ]


def read_provenance(path: Path) -> dict[str, Any]:
    """What the file was made from."""
    with np.load(path) as arrays:
        provenance: dict[str, Any] = json.loads(arrays["index"].tobytes())["provenance"]
        return provenance


def _to_case(entry: dict[str, Any], ct: U8, labels: U8) -> Case:
    z, y, x = entry["spacing_mm"]
    slices = tuple((int(first), int(last)) for first, last in entry["labelled_slices"])
    kept = {**entry, "spacing_mm": (z, y, x), "channels": tuple(entry["channels"]), "labelled_slices": slices}
    return Case(ct=ct, labels=labels, **kept)
