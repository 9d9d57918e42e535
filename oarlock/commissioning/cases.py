"""Past patients in a folder: CT series with their RTSTRUCTs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, RTStructureSetStorage

from oarlock.rtstruct.writer import MANUFACTURER

WANTED: Final = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ApprovalStatus", "StructureSetDate", "StructureSetTime"),
    *("ReferencedFrameOfReferenceSequence", "Manufacturer"),
)
_CT: Final = frozenset({CTImageStorage, EnhancedCTImageStorage})

OUR_OWN: Final = f"Its only structure sets are {MANUFACTURER}'s own, which are not a reference."
NOT_APPROVED: Final = "No structure set of it is APPROVED; --unapproved takes others too."


@dataclass(frozen=True, slots=True)
class PastCase:
    """A series and the one RTSTRUCT that it is judged by.

    :ivar key: tells it apart from others, and says nothing of whose it is.
    :ivar approved: whether the RTSTRUCT's ApprovalStatus is APPROVED.
    """

    key: str
    images: tuple[Path, ...]
    structure_set: Path
    approved: bool

    @property
    def files(self) -> list[Path]:
        return [*self.images, self.structure_set]


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds.

    :ivar left_out: why a series is not among the cases though RTSTRUCTs name it, in the order of the series' hashes.
    :ivar without_structure_set, without_series: how many series, and RTSTRUCTs, have no counterpart there.
    """

    cases: Sequence[PastCase]
    left_out: Sequence[str]
    without_structure_set: int
    without_series: int


def find_cases(folder: Path, *, unapproved: bool = False) -> Found:
    """The past patients in a folder and its subfolders.

    Their order depends on the files' content alone.
    An RTSTRUCT belongs to the series that it names. Of several for one series an approved one counts, and of these the newest.
    Those that Oarlock itself wrote never count: the model would be judged by itself.

    :param unapproved: whether RTSTRUCTs count that are not approved.
    """
    series: dict[str, list[Path]] = {}
    drawn: list[tuple[Any, Path]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        head = _head(path)
        kind = None if head is None else head.get("SOPClassUID")
        if head is not None and kind in _CT:
            series.setdefault(str(head.get("SeriesInstanceUID", "")), []).append(path)
        elif head is not None and kind == RTStructureSetStorage:
            drawn.append((head, path))
    of_series: dict[str, list[tuple[Any, Path]]] = {}
    orphans = 0
    for head, path in drawn:
        named = [uid for uid in _referenced(head) if uid in series]
        orphans += not named
        for uid in named:
            of_series.setdefault(uid, []).append((head, path))
    cases: list[PastCase] = []
    reasons: list[str] = []
    for uid in sorted(of_series, key=_hash):
        place, reason = choose([head for head, _ in of_series[uid]], unapproved=unapproved)
        if place is None:
            reasons.append(reason)
        else:
            head, path = of_series[uid][place]
            cases.append(PastCase(key_of(uid, head), tuple(series[uid]), path, is_approved(head)))
    return Found(sorted(cases, key=lambda case: case.key), reasons, len(set(series) - set(of_series)), orphans)


def choose(heads: Sequence[Any], *, unapproved: bool) -> tuple[int | None, str]:
    """Which of a series' RTSTRUCTs it is judged by.

    None, and why, if none of them may be.

    :param heads: their datasets, with the elements of :data:`WANTED`; at least one.
    :param unapproved: whether such count that are not approved.
    """
    own = [str(head.get("Manufacturer", "")).strip() == MANUFACTURER for head in heads]
    fit = [i for i, head in enumerate(heads) if not own[i] and (unapproved or is_approved(head))]
    if not fit:
        return None, OUR_OWN if all(own) else NOT_APPROVED
    return max(fit, key=lambda i: (_rank(heads[i]), -i)), ""


def key_of(series_uid: str, head: Any) -> str:
    """What tells a series with its RTSTRUCT apart from others.

    It says nothing of whose it is.
    """
    return _hash(f"{series_uid}/{head.get('SOPInstanceUID', '')}")


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _head(path: Path) -> Any | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(WANTED))
    except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, NotImplementedError):
        return None  # whatever lies there: the folder is somebody's archive


def _referenced(head: Any) -> Iterator[str]:
    """Series Instance UIDs that an RTSTRUCT names (PS3.3 C.8.8.5)."""
    for frame in head.get("ReferencedFrameOfReferenceSequence", ()):
        for study in frame.get("RTReferencedStudySequence", ()):
            for one in study.get("RTReferencedSeriesSequence", ()):
                yield str(one.get("SeriesInstanceUID", ""))


def _rank(head: Any) -> tuple[bool, str, str]:
    when = (str(head.get("StructureSetDate") or ""), str(head.get("StructureSetTime") or ""))
    return (is_approved(head), *when)


def is_approved(head: Any) -> bool:
    """Whether an RTSTRUCT says that it was approved."""
    return bool(head.get("ApprovalStatus") == "APPROVED")
