"""From the two public data sets to the one compact training file."""

import csv
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from model_export.datasets.openkbp import RAW_OFFSET_HU, OpenKBPPatient, find_patients, read_patient
from model_export.datasets.plain_brain import with_plain_brain
from model_export.datasets.plain_lungs import with_plain_lungs
from model_export.datasets.released_contours import RATERS, read_case
from model_export.datasets.training_file import CHANNEL, U8, Case, read_cases, to_codes, write_cases
from model_export.progress import shown
from oarlock.organs.catalogue import OARS

log = logging.getLogger(__name__)

NATIVE_PER_VOXEL: Final = 4  # OpenKBP took every fourth row and column of the native grid
LABEL_FACTOR: Final = 2  # label voxels per CT voxel and axis: 2 native pixels wide, about 2 mm
TUNING_CASES: Final = ("0522c0226", "0522c0773", "TCGA-CV-7245")
OPEN_ENDED: Final = ("SpinalCanal", "SpinalCord")
"""Drawn only down to some level: below its lowest drawn slice such an organ is unlabelled, not absent."""

Box = tuple[slice, slice, slice]
More: TypeAlias = Callable[[Case, OpenKBPPatient, Box], Case]


@dataclass(frozen=True, slots=True)
class Match:
    """One scan of the released contours that is an OpenKBP patient.

    With the offsets that lay one on the other.
    """

    case: str
    patient: str
    slice_offset: int
    row_offset: int
    column_offset: int


def read_matches(path: Path) -> dict[str, Match]:
    """The table of matched scans, by OpenKBP patient."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["patient"]: Match(
            row["case"], row["patient"], int(row["slice_offset"]), int(row["row_offset"]), int(row["column_offset"])
        )
        for row in rows
    }


def prepare(openkbp: Path, contours: Path, matched: Path, out: Path, more: More | None = None) -> list[Case]:
    """Write the training file and return its cases.

    Patients that an earlier call got through are not read again.

    :param more: labels that a training scan of OpenKBP gets besides; it is told the scan and where in it the case lies.
    """
    matches = read_matches(matched)
    parts = open_parts(
        out.with_suffix(".parts"), work=[str(openkbp.resolve()), str(contours.resolve()), matched.read_text(), str(more)]
    )
    cases, digest = [], hashlib.sha256()
    for path in shown(find_patients(openkbp), "prepare"):
        for case in made_once(parts / f"{path.stem}.npz", partial(to_case, path, matches, contours, more)):
            digest.update(case.ct.tobytes())
            digest.update(case.labels.tobytes())
            cases.append(case)
    provenance = {"sha256_of_arrays": digest.hexdigest(), "cases": len(cases), "oars": [oar.name for oar in OARS]}
    write_cases(out, cases, provenance)
    shutil.rmtree(parts)
    log.info("%d cases, %.1f MB, arrays %s", len(cases), out.stat().st_size / 1e6, digest.hexdigest()[:12])
    return cases


def open_parts(folder: Path, work: list[str]) -> Path:
    """A folder for what is done, patient by patient.

    Emptied where it belongs to other work.
    """
    note, text = folder / "work.json", json.dumps(work)
    if not (note.is_file() and note.read_text(encoding="utf-8") == text):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(text, encoding="utf-8")
    return folder


def made_once(part: Path, make: Callable[[], Case | None]) -> list[Case]:
    """What there is of one patient, kept in a file.

    One case, or none.
    """
    if not part.is_file():
        case = make()
        aside = part.with_name("unfinished.npz")
        write_cases(aside, [case] if case else [], {})
        aside.replace(part)
    return read_cases(part)


def to_case(path: Path, matches: Mapping[str, Match], contours: Path, more: More | None = None) -> Case | None:
    """A patient of OpenKBP under the best contours.

    The released ones, where there are any, or its own; None without an OAR of ours.
    """
    patient = read_patient(path)
    if match := matches.get(patient.name):
        return to_matched_case(patient, match, contours)
    case = to_openkbp_case(patient)
    if case is None:
        log.info("%s: no OAR of ours is drawn; left out", patient.name)
    if case is None or case.split != "train":
        return case
    case = with_plain_brain(with_plain_lungs(case))
    return more(case, patient, known_box(patient.raw > 0)) if more else case


def to_openkbp_case(patient: OpenKBPPatient) -> Case | None:
    """A patient with OpenKBP's own labels.

    None if no OAR of ours was drawn.
    """
    if not patient.masks:
        return None
    box = known_box(patient.raw > 0)
    ct = cropped_codes(patient, box)
    names = sorted(patient.masks, key=CHANNEL.__getitem__)
    masks = [patient.masks[name][box] for name in names]
    slices = [labelled_slices(name, mask, top_is_known="Brainstem" in names) for name, mask in zip(names, masks, strict=True)]
    labels, channels = np.stack(masks).astype(np.uint8) * 17, tuple(CHANNEL[name] for name in names)  # both raters say the same
    return Case(
        name=patient.name,
        source="openkbp",
        split="tuning" if patient.split == "validation" else "train",
        spacing_mm=patient.spacing_mm,
        ct=ct,
        labels=labels,
        label_factor=1,
        label_full=1,
        channels=channels,
        labelled_slices=tuple(slices),
    )


def to_matched_case(patient: OpenKBPPatient, match: Match, contours: Path) -> Case:
    """A patient's CT under the released contours of both raters.

    Averaged down from the native grid.
    """
    box = known_box(patient.raw > 0)
    ct = cropped_codes(patient, box)
    organs = [read_case(contours, match.case, rater) for rater in RATERS]
    names = sorted(organs[0].keys() | organs[1].keys(), key=CHANNEL.__getitem__)
    labels, slices = [], []
    for name in names:
        drawn = [rater[name].mask for rater in organs if name in rater]
        counts = [count_inside(mask, match, box) for mask in drawn]
        labels.append(counts[0] * 16 + counts[-1])  # drawn by one rater only: that one stands for both
        ranges = [labelled_slices(name, count > 0, top_is_known=True) for count in counts]
        in_scan = (-match.slice_offset - box[0].start, drawn[0].shape[0] - match.slice_offset - box[0].start - 1)
        slices.append((max(in_scan[0], *(first for first, _ in ranges)), min(in_scan[1], *(last for _, last in ranges))))
    stacked, channels = np.stack(labels).astype(np.uint8), tuple(CHANNEL[name] for name in names)
    return Case(
        name=patient.name,
        source="matched",
        split="tuning" if match.case in TUNING_CASES else "train",
        spacing_mm=patient.spacing_mm,
        ct=ct,
        labels=stacked,
        label_factor=LABEL_FACTOR,
        label_full=(NATIVE_PER_VOXEL // LABEL_FACTOR) ** 2,
        channels=channels,
        labelled_slices=tuple(slices),
    )


def known_box(known: npt.NDArray[np.bool_]) -> Box:
    """The smallest box around the known CT."""
    return _box(np.argwhere(known))


def _box(indices: npt.NDArray[np.intp]) -> Box:
    low, high = indices.min(axis=0), indices.max(axis=0) + 1
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), slice(int(low[2]), int(high[2]))


def cropped_codes(patient: OpenKBPPatient, box: Box) -> U8:
    """The known part of the CT as bytes."""
    raw = patient.raw[box]
    return to_codes(raw.astype(np.int32) - RAW_OFFSET_HU, raw > 0)


def labelled_slices(name: str, mask: npt.NDArray[np.bool_], *, top_is_known: bool) -> tuple[int, int]:
    """First and last slice in which undrawn means absent.

    There an undrawn voxel means that the organ is not in it.
    """
    slices = mask.shape[0]
    drawn = np.flatnonzero(mask.any(axis=(1, 2)))
    if name not in OPEN_ENDED or not len(drawn):
        return 0, slices - 1
    return int(drawn[0]), slices - 1 if top_is_known else int(drawn[-1])


def count_inside(mask: npt.NDArray[np.bool_], match: Match, box: Box) -> U8:
    """Counts of native pixels inside each label voxel.

    From a native mask (z, 512, 512) to the boxed OpenKBP grid.
    """
    z, y, x = box
    wide = NATIVE_PER_VOXEL // LABEL_FACTOR
    native = cut(
        mask,
        (z.start + match.slice_offset, z.stop + match.slice_offset),
        (NATIVE_PER_VOXEL * y.start + match.row_offset, NATIVE_PER_VOXEL * y.stop + match.row_offset),
        (NATIVE_PER_VOXEL * x.start + match.column_offset, NATIVE_PER_VOXEL * x.stop + match.column_offset),
    )
    slices, rows, columns = native.shape
    blocks = native.reshape(slices, rows // wide, wide, columns // wide, wide)
    counts: U8 = blocks.sum(axis=(2, 4), dtype=np.uint8)
    return counts


def cut(mask: npt.NDArray[np.bool_], *ranges: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A part of a volume; what lies outside of it is False."""
    out = np.zeros([stop - start for start, stop in ranges], np.bool_)
    source, target = [], []
    for (start, stop), size in zip(ranges, mask.shape, strict=True):
        source.append(slice(max(start, 0), min(stop, size)))
        target.append(slice(max(-start, 0), max(-start, 0) + max(min(stop, size) - max(start, 0), 0)))
    out[tuple(target)] = mask[tuple(source)]
    return out


def count_labels(cases: list[Case]) -> Iterator[tuple[str, int, int]]:
    """How many cases show each OAR: (OAR, training, tuning).

    At least half of it in their known CT.
    """
    for name, channel in CHANNEL.items():
        counts = {"train": 0, "tuning": 0}
        for case in cases:
            counts[case.split] += channel in case.shown
        yield name, counts["train"], counts["tuning"]
