"""RTSTRUCT files of any system to a StructureSet.

Nothing is dropped in silence: what cannot be used is a finding of its ROI. Names are chosen by the sender: they are returned, and
never put into a message.

Sources: PS3.3 C.8.8.5 (structure set), C.8.8.6 (ROI contour; C.8.8.6.1 geometric types, C.8.8.6.3 keyholes), C.8.8.8
(observations).
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.uid import RTStructureSetStorage
from pydicom.valuerep import TEXT_VR_DELIMS

from oarlock.arrays import FloatArray
from oarlock.dicom.decimals import LONGEST_READ, is_decimal
from oarlock.dicom.sequences import Item, read_sequences
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.errors import StructureSetUnreadable

MAX_POINTS: Final = 3_000_000
"""Most points of a file (72 MB in memory); the largest that was seen has 820,000."""

MAX_ROIS: Final = 5_000
"""Most ROIs that a file may list; templates of clinics have some hundred."""

MAX_CONTOURS: Final = 50_000
"""Most contours of a file (2 s); 100 ROIs on 250 slices, two on each, have as many."""

_LARGEST_MM: Final = 1e6
"""Largest coordinate that is taken for one."""

_CLOSED: Final = frozenset({"", "CLOSED", "CLOSEDPLANAR", "CLOSEDPLANARXOR", "INTERPOLATED", "INTERPOLATEDPLANAR"})
"""Geometric types that enclose an area, by their letters alone: spellings differ in case, blanks and lines.

INTERPOLATED_PLANAR is what OsiriX writes for closed contours that it interpolated between drawn ones.
"""

_LINES: Final = frozenset({"OPENPLANAR", "OPENNONPLANAR"})

_DECIMAL_SIGNS: Final = b"0123456789+-.eE \\"
"""Of Decimal Strings and their delimiter (PS3.5 6.2); Python alone takes "nan" and "1_0" for numbers."""


class Code(NamedTuple):
    """A coded concept, such as ("45289007", "SCT", "Parotid gland")."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, eq=False)
class ROI:
    """One region of interest.

    :param codes: of its identification and their modifiers (laterality).
    :param contours: (n, 3) points each, in mm, n >= 3; closed, the first point not repeated.
    :param findings: what of it cannot be used, and why; no text of the file.
    :param lost: how many of its contours are left out although they may enclose tissue.
    :param referenced_instances: SOP Instance UIDs of the images that its contours name.
    :param images: for each contour the SOP Instance UID of the one image that it names, or empty.
    """

    number: int
    name: str
    codes: tuple[Code, ...]
    contours: tuple[FloatArray, ...]
    findings: tuple[str, ...]
    frame_of_reference_uid: str = ""
    referenced_instances: frozenset[str] = frozenset()
    images: tuple[str, ...] = ()
    lost: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StructureSet:
    """The content of one RTSTRUCT.

    :param frame_of_reference_uid: the one that the file names first; ``frames_of_reference`` are all of them.
    :param referenced_instances: SOP Instance UIDs of all images that the file names.
    :param listed: SOP Instance UIDs of the images that the file lists, by the Series Instance UID of each series that it names.
    """

    sop_instance_uid: str
    label: str
    frame_of_reference_uid: str
    rois: tuple[ROI, ...]
    frames_of_reference: frozenset[str] = frozenset()
    referenced_instances: frozenset[str] = frozenset()
    findings: tuple[str, ...] = ()
    patient_id: str = ""
    listed: Mapping[str, frozenset[str]] = field(default_factory=dict)


def read_structure_set(path: Path) -> StructureSet:
    """Read an RTSTRUCT, with or without preamble and file meta information.

    :raises StructureSetUnreadable: it is not an RT Structure Set, is damaged, or is too large.
    """
    try:
        root = read_sequences(path, sop_class=RTStructureSetStorage)
    except Unusable as error:
        raise StructureSetUnreadable(reason=str(error)) from error
    if root is None or not (root.text(Tag.SOP_CLASS_UID) or root.text(Tag.MODALITY) == "RTSTRUCT"):
        raise StructureSetUnreadable(reason="it is not an RT Structure Set")
    rois, findings = _Rois(root).read()
    frames = _frames(root)
    listed = _listed(root)
    return StructureSet(
        sop_instance_uid=root.text(Tag.SOP_INSTANCE_UID),
        label=_text(root.values.get(Tag.STRUCTURE_SET_LABEL, b""), root),
        frame_of_reference_uid=frames[0] if frames else "",
        rois=rois,
        frames_of_reference=frozenset(frames),
        referenced_instances=frozenset[str]().union(*listed.values(), *(roi.referenced_instances for roi in rois)),
        findings=findings,
        patient_id=_text(root.values.get(Tag.PATIENT_ID, b""), root),
        listed={uid: images for uid, images in listed.items() if uid},
    )


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _frames(root: Item) -> list[str]:
    """All frames of reference that the file names: its own, the referenced ones, those of its ROIs."""
    found = [root.text(Tag.FRAME_OF_REFERENCE_UID)]
    found += [frame.text(Tag.FRAME_OF_REFERENCE_UID) for frame in root.items(Tag.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE)]
    found += [roi.text(Tag.REFERENCED_FRAME_OF_REFERENCE_UID) for roi in root.items(Tag.STRUCTURE_SET_ROI_SEQUENCE)]
    return [uid for uid in dict.fromkeys(found) if uid]


def _listed(root: Item) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for frame in root.items(Tag.REFERENCED_FRAME_OF_REFERENCE_SEQUENCE):
        for study in frame.items(Tag.RT_REFERENCED_STUDY_SEQUENCE):
            for series in study.items(Tag.RT_REFERENCED_SERIES_SEQUENCE):
                uid = series.text(Tag.SERIES_INSTANCE_UID)
                images = {image.text(Tag.REFERENCED_SOP_INSTANCE_UID) for image in series.items(Tag.CONTOUR_IMAGE_SEQUENCE)}
                found[uid] = found.get(uid, frozenset()) | images
    return found


def _text(raw: bytes, root: Item) -> str:
    """Text in the file's character set; what cannot be decoded becomes U+FFFD."""
    terms = [term.strip() for term in root.text(Tag.SPECIFIC_CHARACTER_SET).split("\\")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of terms that it replaces, and of bytes that it cannot decode
        try:
            text = decode_bytes(raw, convert_encodings(terms), TEXT_VR_DELIMS)
        except (LookupError, ValueError):
            text = raw.decode("ascii", "replace")
    return text.strip(" \0")


def _integer(text: str) -> int | None:
    """A whole number of at most 32 bits, also if it is written as a decimal ("1.0", "1e0"); None for anything else."""
    if len(text) > LONGEST_READ or not is_decimal(text):
        return None
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**32 else None


class _Lost(Exception):
    """Why a contour that may enclose tissue cannot be used; no text of the file."""


class _Rois:
    """Puts together what a file says about its ROIs in three places."""

    def __init__(self, root: Item) -> None:
        self._root = root
        self._points = 0

    def read(self) -> tuple[tuple[ROI, ...], tuple[str, ...]]:
        self._check_counts()
        listed = [(_integer(item.text(Tag.ROI_NUMBER)), item) for item in self._root.items(Tag.STRUCTURE_SET_ROI_SEQUENCE)]
        numbers = Counter(number for number, _ in listed)
        drawn = _by_number(self._root.items(Tag.ROI_CONTOUR_SEQUENCE))
        observed = _by_number(self._root.items(Tag.RT_ROI_OBSERVATIONS_SEQUENCE))
        rois = tuple(
            self._roi(number, item, drawn.get(number, []), observed.get(number, []))
            for number, item in listed
            if number is not None and numbers[number] == 1
        )
        findings = [f"{n} ROIs share the number {number} and are left out" for number, n in _shared(numbers)]
        if numbers[None]:
            findings.append(f"{numbers[None]} ROI(s) without a number are left out")
        unlisted = sum(number not in numbers for number in drawn)
        if unlisted:
            findings.append(f"the contours of {unlisted} ROI(s) that are not listed are left out")
        return rois, tuple(findings)

    def _check_counts(self) -> None:
        """Before any of them is looked at: each costs its time, however small it is."""
        drawn = self._root.items(Tag.ROI_CONTOUR_SEQUENCE)
        if max(len(self._root.items(Tag.STRUCTURE_SET_ROI_SEQUENCE)), len(drawn)) > MAX_ROIS:
            raise StructureSetUnreadable(reason=f"it holds more than {MAX_ROIS:,} ROIs")
        if sum(len(one.items(Tag.CONTOUR_SEQUENCE)) for one in drawn) > MAX_CONTOURS:
            raise StructureSetUnreadable(reason=f"it holds more than {MAX_CONTOURS:,} contours")

    def _roi(self, number: int, item: Item, drawn: Sequence[Item], observed: Sequence[Item]) -> ROI:
        items = [contour for one in drawn for contour in one.items(Tag.CONTOUR_SEQUENCE)]
        contours, images, named, problems, lost = [], [], set[str](), Counter[str](), 0
        for contour in items:
            uids = [image.text(Tag.REFERENCED_SOP_INSTANCE_UID) for image in contour.items(Tag.CONTOUR_IMAGE_SEQUENCE)]
            named.update(uids)
            try:
                points, problem = self._contour(contour)
            except _Lost as error:
                points, problem = None, str(error)
                lost += 1
            problems[problem] += bool(problem)
            if points is not None:
                contours.append(points)
                images.append(uids[0] if len(uids) == 1 else "")
        findings = [f"{n} of {len(items)} contour(s): {problem}" for problem, n in problems.items() if problem]
        return ROI(
            number=number,
            name=_text(item.values.get(Tag.ROI_NAME, b""), self._root),
            codes=tuple(self._codes(observed)),
            contours=tuple(contours),
            findings=tuple(findings or ([] if items else ["it has no contours"])),
            frame_of_reference_uid=item.text(Tag.REFERENCED_FRAME_OF_REFERENCE_UID),
            referenced_instances=frozenset(named) - {""},
            images=tuple(images),
            lost=lost,
        )

    def _codes(self, observed: Sequence[Item]) -> Iterable[Code]:
        for observation in observed:
            for code in observation.items(Tag.RT_ROI_IDENTIFICATION_CODE_SEQUENCE):
                for item in (code, *code.items(Tag.SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE)):
                    yield Code(
                        item.text(Tag.CODE_VALUE),
                        item.text(Tag.CODING_SCHEME_DESIGNATOR),
                        _text(item.values.get(Tag.CODE_MEANING, b""), self._root),
                    )

    def _contour(self, item: Item) -> tuple[FloatArray | None, str]:
        """The points of a contour, if it has an area; and what is wrong with it.

        :raises _Lost: it may enclose tissue, and cannot be used.
        """
        kind = re.sub("[^A-Z]", "", item.text(Tag.CONTOUR_GEOMETRIC_TYPE).upper())
        if kind != "POINT" and kind not in _CLOSED:
            raise _Lost("left out: an open line" if kind in _LINES else "left out: its geometric type is not known")
        raw = item.values.get(Tag.CONTOUR_DATA, b"").strip(b" \0")
        self._points += raw.count(b"\\") // 3 + 1
        if self._points > MAX_POINTS:
            raise StructureSetUnreadable(reason=f"it holds more than {MAX_POINTS:,} points")
        if kind == "POINT":
            if raw.count(b"\\") >= 8:
                raise _Lost("left out: it is called a point, and has several")
            return None, "left out: a point, which has no area"
        points = _points(raw)
        if points is None:
            raise _Lost("left out: its points are not triples of finite numbers")
        stated = _integer(item.text(Tag.NUMBER_OF_CONTOUR_POINTS))
        problem = "its number of points is misstated" if stated is not None and stated != len(points) else ""
        points = _opened(points)
        if len(points) < 3:
            return None, "left out: fewer than three points"
        return points, problem


def _shared(numbers: Counter[int | None]) -> Iterable[tuple[int, int]]:
    """Numbers that several ROIs have, 0 like any other, and how many have each."""
    return ((number, n) for number, n in numbers.items() if number is not None and n > 1)


def _by_number(items: Sequence[Item]) -> dict[int | None, list[Item]]:
    found: dict[int | None, list[Item]] = {}
    for item in items:
        found.setdefault(_integer(item.text(Tag.REFERENCED_ROI_NUMBER)), []).append(item)
    return found


def _points(raw: bytes) -> FloatArray | None:
    """(n, 3) points of Contour Data; None where it is not triples of finite numbers.

    Parsed without an object for each number, which would take ten times the memory.
    """
    if raw.translate(None, _DECIMAL_SIGNS):
        return None
    try:
        numbers = np.fromstring(raw, sep=" \\ ")
    except ValueError:
        return None
    if numbers.size != (raw.count(b"\\") + 1 if raw else 0) or numbers.size % 3:
        return None
    if not (numbers.min(initial=0) >= -_LARGEST_MM and numbers.max(initial=0) <= _LARGEST_MM):  # nor NaN, which is neither
        return None
    return numbers.reshape(-1, 3)


def _opened(points: FloatArray) -> FloatArray:
    """Points without repetition of the one before, nor of the first at the end."""
    moved = (points != np.concatenate([points[-1:], points[:-1]])).any(axis=1)
    return points if moved.all() else points[moved]
