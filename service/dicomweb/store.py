"""STOW-RS: which instances are taken (PS3.18 10.5).

And what the sender is told of each instance of a request.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from oarlock.ct.listed_images import read_listing
from oarlock.ct.sorting import CT_IMAGE, MAX_UPLOAD_ELEMENTS, MULTI_FRAME_CT, RT_STRUCTURE_SET, DicomFile
from oarlock.dicom.elements import MAX_INFLATED_BYTES, read_elements
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.store.received import Received, Sender

TAKEN: Final = frozenset({CT_IMAGE, RT_STRUCTURE_SET}) | MULTI_FRAME_CT
"""SOP classes of series and of RTSTRUCTs to compare with."""

OUT_OF_RESOURCES: Final = 0xA700
WRONG_STUDY: Final = 0xA900
NOT_UNDERSTOOD: Final = 0xC000
CLASS_NOT_SUPPORTED: Final = 0x0122
"""Failure Reason (PS3.18 Table I.2-2, PS3.7 Annex C); A900 where an instance is not of the study in the address."""

_WANTED: Final = frozenset({Tag.SOP_CLASS_UID, Tag.SOP_INSTANCE_UID, Tag.STUDY_INSTANCE_UID, Tag.SERIES_INSTANCE_UID})


@dataclass(frozen=True, slots=True)
class Instance:
    """A file of the request, or why it is refused.

    The reason is 0 if it is taken. ``collected_with`` is the CT series that it is received for; ``visited`` how many elements
    were looked at.
    """

    path: Path
    digest: str
    failure: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    collected_with: str = ""
    visited: int = 0


def look_at_all(files: Iterable[tuple[Path, str]], *, study_uid: str | None, structure_sets: bool) -> list[Instance]:
    """What the files of a request are, given with their digests.

    When their headers hold more elements than an upload may, what is left is refused unseen.
    """
    found: list[Instance] = []
    visited = 0
    for path, digest in files:
        if visited > MAX_UPLOAD_ELEMENTS:
            found.append(Instance(path, digest, OUT_OF_RESOURCES))
            continue
        instance = look_at(path, digest, study_uid=study_uid, structure_sets=structure_sets)
        visited += instance.visited
        found.append(instance)
    return found


def look_at(path: Path, digest: str, *, study_uid: str | None, structure_sets: bool) -> Instance:
    """What a file is.

    :param study_uid: of the address; None if it names none.
    :param structure_sets: whether RTSTRUCTs are taken: a service that de-identifies takes none, as they are free text.
    """
    try:
        header = read_elements(path, _WANTED, keep=lambda _: True)
    except Unusable:
        return Instance(path, digest, NOT_UNDERSTOOD, visited=MAX_INFLATED_BYTES // 8)  # as many as a small file can hold
    if header is None:
        return Instance(path, digest, NOT_UNDERSTOOD)
    file = DicomFile(1, header)
    study, series = file.uid(Tag.STUDY_INSTANCE_UID), file.uid(Tag.SERIES_INSTANCE_UID)
    instance = file.uid(Tag.SOP_INSTANCE_UID)
    collected_with, visited = series, header.visited
    failure = 0
    if not (instance and study and series):
        failure = NOT_UNDERSTOOD
    elif file.sop_class not in TAKEN or (file.sop_class == RT_STRUCTURE_SET and not structure_sets):
        failure = CLASS_NOT_SUPPORTED
    elif study_uid is not None and study != study_uid:
        failure = WRONG_STUDY
    elif file.sop_class == RT_STRUCTURE_SET:
        listing = read_listing(path)
        visited += listing.visited
        listed = [uid for uid in listing.images if uid]
        collected_with = listed[0] if len(listed) == 1 else ""
        failure = 0 if collected_with else NOT_UNDERSTOOD
    return Instance(path, digest, failure, file.sop_class, instance, study, series, collected_with, visited)


def take(instances: Sequence[Instance], received: Received, sender: Sender, *, most: int) -> list[Instance]:
    """Keep what can be taken, series by series.

    What there is no room for fails.
    """
    by_series: defaultdict[tuple[str, str], list[Instance]] = defaultdict(list)
    for one in instances:
        if not one.failure:
            by_series[one.study_uid, one.collected_with].append(one)
    failed = [one for one in instances if one.failure]
    taken: list[Instance] = []
    for (study_uid, series_uid), found in by_series.items():
        count = received.add(sender, study_uid, series_uid, [(one.path, one.digest) for one in found], most=most)
        taken += found[:count]
        failed += [Instance(one.path, one.digest, OUT_OF_RESOURCES, *_uids(one)) for one in found[count:]]
    return taken + failed


def _uids(one: Instance) -> tuple[str, str, str, str, str]:
    return one.sop_class_uid, one.sop_instance_uid, one.study_uid, one.series_uid, one.collected_with


def answer(instances: Sequence[Instance], base: str) -> tuple[int, Dataset]:
    """The status and the data set of an answer (PS3.18 10.5.3, I.2).

    It names each instance as taken or failed.
    """
    stored = [one for one in instances if not one.failure]
    failed = [one for one in instances if one.failure]
    dataset = Dataset()
    studies = {one.study_uid for one in stored}
    if len(studies) == 1:
        dataset.RetrieveURL = f"{base}/studies/{studies.pop()}"
    if stored:
        dataset.ReferencedSOPSequence = [_reference(one, base) for one in stored]
    if failed:
        dataset.FailedSOPSequence = [_reference(one, base) for one in failed]
    return (200 if not failed else 202 if stored else 409), dataset


def _reference(one: Instance, base: str) -> Dataset:
    item = Dataset()
    if one.sop_instance_uid:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    if one.failure:
        item.FailureReason = one.failure
    else:
        item.RetrieveURL = f"{base}/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"
    return item
