"""The compact file that a box network is trained from.

The CT around each scan's box, and labels of any fineness.

A label comes from an expert (the released contours, on the native grid), from OpenKBP, or was transferred. Each keeps its own
lattice; a step resamples it once.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model_export.boxes.config import BoxConfig
from model_export.boxes.things import distance_to_skin
from model_export.datasets.openkbp import find_patients
from model_export.datasets.training_file import HU_OF_CODE, to_codes
from model_export.prepare import OPEN_ENDED, Match, known_box, read_matches
from model_export.progress import shown
from model_export.transferred.atlases import Share, read_shares, share_centre_mm, share_known
from model_export.transferred.scans import NATIVE_PER_VOXEL, Scan, centre_mm, read_scan
from model_export.transferred.votes import TransferredScan, fused, joined, on_lattice, read_transferred

MARGIN: Final = (1.35, 20.0)
"""How much more of the CT is kept than a box covers, for turned, stretched and shifted boxes: a factor, then mm."""
EXPERT, OPENKBP, TRANSFERRED = "expert", "openkbp", "transferred"

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
ZYX = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class BoxLabel:
    """One organ: shares (z, y, x) as bytes.

    On a lattice `factor` times finer than the CT along y and x.

    ``first`` is the index of the first voxel on that lattice, counted from the first voxel of the case's CT; ``slices`` are the
    first and last slice of the CT in which the organ's absence means absence.
    """

    organ: str
    shares: U8
    first: tuple[int, int, int]
    factor: int
    source: str
    slices: tuple[int, int]


@dataclass(frozen=True)
class BoxCase:
    """One scan around one box, with its labels.

    CT bytes (z, y, x), and where the box's middle is, (z, y, x) in mm from the outer corner.
    """

    name: str
    case: str  # of the released contours, or ""
    split: str
    spacing_mm: ZYX
    ct: U8
    middle_mm: ZYX
    labels: tuple[BoxLabel, ...]

    @cached_property
    def by_organ(self) -> dict[str, BoxLabel]:
        """The labels by the organ's name."""
        return {label.organ: label for label in self.labels}

    @cached_property
    def is_expert(self) -> bool:
        """Whether an expert drew any of it."""
        return any(label.source == EXPERT for label in self.labels)

    @cached_property
    def skin_mm(self) -> F32:
        """Distance of each voxel to the body."""
        return distance_to_skin(self.hu, self.spacing_mm)

    @property
    def hu(self) -> F32:
        """CT in HU, unknown voxels as air."""
        return HU_OF_CODE[self.ct]


@dataclass(frozen=True)
class Sources:
    """Where the public data lie, and what was made from them."""

    openkbp: Path
    contours: Path
    matched: Path
    transferred: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()  # cases of the released contours that nothing may be learnt from
    splits: tuple[str, ...] = ("train", "validation", "test")  # OpenKBP's; a matched scan is not asked for its split


def make_cases(
    box: BoxConfig, sources: Sources, centres: Mapping[str, Mapping[str, tuple[float, float, float]]]
) -> list[BoxCase]:
    """Every scan with a label and a place for the box.

    :param centres: middles (x, y, z) in mm of organs as a coarse model found them, by scan; used where no label gives one.
    """
    matches = read_matches(sources.matched)
    cases = []
    for path in shown(find_patients(sources.openkbp), f"boxes of {box.name}"):
        match = matches.get(path.stem)
        if match and match.case in sources.left_out:
            continue
        if match is None and path.parent.name.removesuffix("-pats") not in sources.splits:
            continue
        scan = read_scan(path)
        case = make_case(box, scan, match, sources, centres.get(scan.name, {}))
        if case is not None:
            cases.append(case)
    return cases


def make_case(
    box: BoxConfig, scan: Scan, match: Match | None, sources: Sources, centres: Mapping[str, tuple[float, float, float]]
) -> BoxCase | None:
    """One scan's box; None without a label or a place."""
    labels: dict[str, BoxLabel] = {}
    places = dict(centres)
    for folder in sources.transferred:
        if (path := folder / f"{scan.name}.npz").is_file():
            found = read_transferred(path)
            places |= found.landmarks
            labels |= _transferred_labels(box, scan, found, sources.left_out)
    organs = set(box.drawn_organs)
    for organ, mask in scan.masks.items():
        if organ in box.anchors:
            places[organ] = centre_mm(mask, scan.spacing_mm)
        if organ in organs:
            carried = labels.get(organ)
            labels[organ] = _openkbp_label(organ, mask, scan) if carried is None else _joined(carried, mask)
    if match:
        shares = read_shares(scan, match, sources.contours, (*box.drawn_organs, *box.anchors))
        whole = {name for name, share in shares.items() if share_known(scan, share) >= 0.6}
        places |= {name: share_centre_mm(shares[name], scan) for name in whole & box.anchors.keys()}
        labels |= {name: _expert_label(name, share, scan) for name, share in shares.items() if name in organs}
    found_anchors = [name for name in box.anchors if name in places]
    if not labels or not found_anchors:
        return None
    middle = np.mean([np.add(places[name][::-1], box.anchors[name]) for name in found_anchors], axis=0)
    return _cut_out(box, scan, middle, tuple(labels.values()), match.case if match else "")


def _transferred_labels(box: BoxConfig, scan: Scan, found: TransferredScan, left_out: Collection[str]) -> dict[str, BoxLabel]:
    labels = {}
    for organ, votes in found.votes.items():
        if organ in box.drawn_organs and (label := fused(votes.without(left_out))) is not None:
            shares = np.rint(label * 255).astype(np.uint8)
            whole = (0, scan.hu.shape[0] - 1)
            labels[organ] = BoxLabel(organ, shares, votes.first, NATIVE_PER_VOXEL, TRANSFERRED, whole)
    return labels


def _joined(carried: BoxLabel, mask: npt.NDArray[np.bool_]) -> BoxLabel:
    """What experts' contours say of an organ, and to a smaller share what OpenKBP drew there."""
    drawn = on_lattice(mask, carried.first, carried.shares.shape, carried.factor)
    shares = joined(carried.shares.astype(np.float32) / 255.0, drawn)
    return replace(carried, shares=np.rint(255.0 * shares).astype(np.uint8))


def _openkbp_label(organ: str, mask: npt.NDArray[np.bool_], scan: Scan) -> BoxLabel:
    from model_export.prepare import labelled_slices

    z, y, x = known_box(mask)
    slices = labelled_slices(organ, mask, top_is_known="Brainstem" in scan.masks)
    shares = np.pad(mask[z, y, x].astype(np.uint8) * 255, 1)
    return BoxLabel(organ, shares, (z.start - 1, y.start - 1, x.start - 1), 1, OPENKBP, slices)


def _expert_label(organ: str, share: Share, scan: Scan) -> BoxLabel:
    drawn = np.flatnonzero(share.values.any(axis=(1, 2))) + share.first[0]
    slices = (int(drawn[0]) if organ in OPEN_ENDED else 0, scan.hu.shape[0] - 1)
    return BoxLabel(organ, np.rint(share.values * 255).astype(np.uint8), share.first, NATIVE_PER_VOXEL, EXPERT, slices)


def _cut_out(box: BoxConfig, scan: Scan, middle: npt.NDArray[np.float64], labels: tuple[BoxLabel, ...], case: str) -> BoxCase:
    """The CT around a box, and the labels counted from its first voxel."""
    spans = []
    for place, size, step, spacing, count in zip(middle, box.size, box.spacing_mm, scan.spacing_mm, scan.hu.shape, strict=True):
        half = size * step / 2 * MARGIN[0] + MARGIN[1]
        first = min(max(0, int((place - half) / spacing)), count - 1)
        spans.append(slice(first, min(max(first + 1, int((place + half) / spacing) + 1), count)))
    starts = np.array([span.start for span in spans])
    z, y, x = (
        (place + spacing / 2) - span.start * spacing for place, spacing, span in zip(middle, scan.spacing_mm, spans, strict=True)
    )
    return BoxCase(
        name=scan.name,
        case=case,
        split=scan.split,
        spacing_mm=scan.spacing_mm,
        ct=to_codes(scan.hu[tuple(spans)], scan.known[tuple(spans)]),
        middle_mm=(float(z), float(y), float(x)),
        labels=tuple(_moved(label, starts) for label in labels),
    )


def _moved(label: BoxLabel, starts: npt.NDArray[np.int_]) -> BoxLabel:
    z, y, x = (int(f - s * k) for f, s, k in zip(label.first, starts, (1, label.factor, label.factor), strict=True))
    slices = (label.slices[0] - int(starts[0]), label.slices[1] - int(starts[0]))
    return BoxLabel(label.organ, label.shares, (z, y, x), label.factor, label.source, slices)


def write_box_cases(path: Path, cases: Sequence[BoxCase], provenance: Mapping[str, Any]) -> None:
    """One compressed ``.npz``; ``provenance`` says what it was made from."""
    arrays: dict[str, Any] = {}
    entries = []
    for case in cases:
        arrays[f"{case.name}/ct"] = case.ct
        arrays |= {f"{case.name}/{label.organ}": label.shares for label in case.labels}
        labels = [{key: value for key, value in asdict(label).items() if key != "shares"} for label in case.labels]
        keys = ("name", "case", "split", "spacing_mm", "middle_mm")
        entries.append({key: getattr(case, key) for key in keys} | {"labels": labels})
    arrays["index"] = np.frombuffer(json.dumps({"cases": entries, "provenance": provenance}).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part.npz")
    np.savez_compressed(aside, **arrays)
    aside.replace(path)


def read_box_cases(path: Path) -> list[BoxCase]:
    """What `write_box_cases` wrote."""
    with np.load(path) as arrays:
        entries = json.loads(arrays["index"].tobytes())["cases"]
        return [_to_case(entry, arrays) for entry in entries]


def _to_case(entry: dict[str, Any], arrays: Mapping[str, Any]) -> BoxCase:
    name = entry["name"]
    labels = tuple(
        BoxLabel(
            shares=arrays[f"{name}/{label['organ']}"],
            first=tuple(label["first"]),
            slices=tuple(label["slices"]),
            organ=label["organ"],
            factor=label["factor"],
            source=label["source"],
        )
        for label in entry["labels"]
    )
    return BoxCase(
        name=name,
        case=entry["case"],
        split=entry["split"],
        spacing_mm=tuple(entry["spacing_mm"]),
        ct=arrays[f"{name}/ct"],
        middle_mm=tuple(entry["middle_mm"]),
        labels=labels,
    )


def box_data_hash(path: Path) -> str:
    """SHA-256 of the arrays of a file, whatever they were compressed with."""
    digest = hashlib.sha256()
    with np.load(path) as arrays:
        for name in sorted(arrays.files):
            digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def count_box_labels(cases: Iterable[BoxCase]) -> dict[str, dict[str, int]]:
    """How many scans show each organ, by the source of the label."""
    counts: dict[str, dict[str, int]] = {}
    for label in (label for case in cases for label in case.labels):
        by_source = counts.setdefault(label.organ, {})
        by_source[label.source] = by_source.get(label.source, 0) + 1
    return counts
