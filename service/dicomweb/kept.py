"""What is kept of finished jobs, as studies, series and instances.

A study holds the CT series that were contoured in it, as long as their images are kept, and of each job an RTSTRUCT, a
segmentation and the report, each in a series of its own. UIDs and patients are those of the sender, also where the series was
de-identified.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, RTStructureSetStorage, SegmentationStorage

from oarlock.ct.series import SeriesHeader
from oarlock.dicom.elements import read_elements
from oarlock.dicom.encoding import dataset_start, encode_dataset, split_elements
from oarlock.dicom.sequences import read_sequences_until
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.errors import JobExpired, ResultNotFound
from oarlock.reporting import encapsulated as report
from oarlock.rtstruct.writer import Authorship
from oarlock.seg import writer as seg
from oarlock.store.files import QA_REPORT, RENDERING, RTSTRUCT, Storage
from oarlock.store.jobs import Job, JobId, JobState
from service.api.reports import report_dicom, report_version
from service.container import Service
from service.delivery import kept_header, rtstruct_of, segmentation_of, with_true_uids
from service.dicomweb.costs import is_costly
from service.errors import NotKept

PAGE: Final = 200
"""How many jobs are read from the table at once."""

HEAD_BYTES: Final = 131_072
"""The attributes in front of an RTSTRUCT's sequences are shorter: the longest text that is taken over from a CT has 65,536."""

LOOK_S: Final = 3_600.0
LOOKS: Final = 10_000
"""How long a look at a series lasts, and how many looks are remembered."""

_SEQUENCES: Final = 0x30060010
BULK: Final = (0x7FE00010, 0x00420011)
"""Elements that metadata name by an address: Pixel Data, Encapsulated Document."""


@dataclass(frozen=True)
class Kept:
    """One instance.

    :ivar path: of a CT image, the file that was sent (or written anew without its patient); None of what is made on demand.
    """

    job: Job
    sop_class_uid: str
    sop_instance_uid: str
    path: Path | None = None


@dataclass(frozen=True)
class KeptSeries:
    """One series of a job: CT, RTSTRUCT or segmentation.

    ``job`` has the true UIDs.
    """

    job: Job
    modality: str
    series_instance_uid: str
    instances: Sequence[Kept]


class Memory:
    """What is remembered between calls.

    Where the slices of a few series lie, and who was given pixels lately.
    """

    def __init__(self, service: Service) -> None:
        self.header = lru_cache(maxsize=8)(partial(_read_header, service))
        self.has_roi = lru_cache(maxsize=LOOKS)(partial(_has_roi, service.storage))
        self.report = lru_cache(maxsize=8)(partial(_report, service))
        self._looks: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._looking = Lock()

    def is_first_look(self, caller_id: str, series: KeptSeries) -> bool:
        """Whether a caller got no pixels of a series lately.

        In the last hour: the audit log has one entry for all of them.
        """
        key, now = (caller_id, series.series_instance_uid), monotonic()
        with self._looking:
            first = now - self._looks.pop(key, -LOOK_S) >= LOOK_S
            self._looks[key] = now
            if len(self._looks) > LOOKS:
                self._looks.popitem(last=False)
        return first


def _read_header(service: Service, job: Job) -> SeriesHeader:
    return with_true_uids(kept_header(job.id, service.settings, service.storage), service.vault.uids(job))


def _has_roi(storage: Storage, job_id: JobId) -> bool:
    """Whether the RTSTRUCT of a job has an ROI.

    There is no segmentation of one without: it must have a segment.
    """
    root = read_sequences_until(storage.result(job_id, RTSTRUCT), Tag.ROI_CONTOUR_SEQUENCE, sop_class=RTStructureSetStorage)
    return root is not None and bool(root.items(Tag.STRUCTURE_SET_ROI_SEQUENCE))


def _report(service: Service, job: Job, uid: str) -> bytes:
    """The report of a job as a DICOM object.

    It takes seconds to make, and callers ask for it by its parts.
    """
    del uid  # with it another report is another entry
    return report_dicom(service, job)


class Archive:
    """What a caller finds: the jobs of their site.

    Or of all sites where they belong to none.
    """

    def __init__(self, service: Service, memory: Memory, site: str) -> None:
        self.service, self.memory, self._site = service, memory, site

    # ── finding ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def studies(self) -> Iterator[list[KeptSeries]]:
        """The series of every study, that with the newest job first."""
        seen: set[str] = set()
        cursor: str | None = None
        while True:
            jobs, cursor = self.service.store.page(site=self._site, state=JobState.SUCCEEDED, limit=PAGE, cursor=cursor)
            for job in jobs:
                uid = self.service.vault.reveal(job).series.study_instance_uid
                if uid not in seen:
                    seen.add(uid)
                    yield self._of_study(uid)
            if cursor is None:
                return

    def study(self, study_uid: str) -> list[KeptSeries]:
        """The series of a study.

        :raises NotKept: if there is none.
        """
        found = self._of_study(study_uid)
        if not found:
            raise NotKept(what="study")
        return found

    def series(self, study_uid: str, series_uid: str) -> KeptSeries:
        """One series.

        :raises NotKept: if there is none.
        """
        for series in self.study(study_uid):
            if series.series_instance_uid == series_uid:
                return series
        raise NotKept(what="series")

    def instance_of(self, series: KeptSeries, instance_uid: str) -> Kept:
        """One instance.

        :raises NotKept: if there is none.
        """
        for kept in series.instances:
            if kept.sop_instance_uid == instance_uid:
                return kept
        raise NotKept(what="instance")

    def _of_study(self, study_uid: str) -> list[KeptSeries]:
        found: dict[str, KeptSeries] = {}
        for job in self.service.store.of_study({study_uid, self.service.vault.pseudonym(study_uid)}, site=self._site):
            for series in self._of_job(self.service.vault.reveal(job)):
                found.setdefault(series.series_instance_uid, series)  # of a CT series that was contoured twice, the newest job's
        return list(found.values())

    def _of_job(self, job: Job) -> Iterator[KeptSeries]:
        images = self._images(job)
        if images:
            yield KeptSeries(job, "CT", job.series.series_instance_uid, images)
        authorship = Authorship(job.id, job.created_at, job.model)
        rtstruct = authorship.uid("instance")
        yield KeptSeries(job, "RTSTRUCT", authorship.uid("series"), [Kept(job, RTStructureSetStorage, rtstruct)])
        with suppress(ResultNotFound, Unusable):  # deleted in this very moment
            if self.memory.has_roi(job.id):
                segmentation = Kept(job, SegmentationStorage, seg.instance_uid(rtstruct))
                yield KeptSeries(job, "SEG", seg.series_uid(rtstruct), [segmentation])
        if self._has_report(job):
            uid = report.instance_uid(rtstruct, report_version(self.service, job))
            yield KeptSeries(job, "DOC", report.series_uid(rtstruct), [Kept(job, EncapsulatedPDFStorage, uid)])

    def _has_report(self, job: Job) -> bool:
        with suppress(ResultNotFound):
            return all(self.service.storage.result(job.id, name) for name in (RTSTRUCT, QA_REPORT, RENDERING))
        return False

    def _images(self, job: Job) -> list[Kept]:
        """The images of the series, by slice; those that were sent beside it (localizers, references) are not among them."""
        if job.input_purged_at is not None:
            return []
        try:
            files = self.service.storage.input_files(job.id)
            header = self.memory.header(job)
        except (JobExpired, ResultNotFound):  # deleted in this very moment
            return []
        images = {one.sop_instance_uid: one for one in header.instances}.values()
        return [Kept(job, one.sop_class_uid, one.sop_instance_uid, files[one.position - 1]) for one in images]

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def content(self, kept: Kept) -> bytes:
        """The Part 10 file of an instance, as it is stored.

        :raises NotKept: if it was deleted in the meantime.
        """
        try:
            if kept.path is not None:
                return self.service.vault.image(kept.job, kept.path.read_bytes())
            if kept.sop_class_uid == EncapsulatedPDFStorage:
                return self.memory.report(kept.job, kept.sop_instance_uid)
            make = rtstruct_of if kept.sop_class_uid == RTStructureSetStorage else segmentation_of
            return make(self.service, kept.job)
        except (FileNotFoundError, ResultNotFound) as error:
            raise NotKept(what="instance") from error

    def dataset(self, kept: Kept) -> Dataset:
        """The whole data set of an instance.

        Of an image that is too costly to be read in full, only what it is.
        """
        return self._known(kept) if self.is_costly(kept) else pydicom.dcmread(BytesIO(self.content(kept)), force=True)

    def is_costly(self, kept: Kept) -> bool:
        """Whether an instance is not to be read in full.

        What was written here, and not by a stranger, always is.
        """
        return kept.path is not None and kept.job.identity is None and is_costly(kept.path)

    def _known(self, kept: Kept) -> Dataset:
        """The attributes of an image by which it is found.

        :raises NotKept: if it was deleted in the meantime.
        """
        wanted = {Tag.SPECIFIC_CHARACTER_SET, Tag.SOP_CLASS_UID, Tag.SOP_INSTANCE_UID, Tag.MODALITY, Tag.INSTANCE_NUMBER}
        wanted |= {Tag.STUDY_INSTANCE_UID, Tag.SERIES_INSTANCE_UID, Tag.SERIES_DESCRIPTION, Tag.PATIENT_NAME, Tag.PATIENT_ID}
        header = read_elements(kept.path, wanted, keep=lambda _: True) if kept.path and kept.path.exists() else None
        if header is None:
            raise NotKept(what="instance")
        values = {tag: value for tag, value in header.values.items() if tag in wanted}
        return pydicom.dcmread(BytesIO(encode_dataset(values)), force=True)

    def description(self, kept: Kept) -> Dataset:
        """What a search tells of an instance.

        Of a CT image all but its pixels, of a result what stands before its sequences.
        """
        if kept.path is not None:
            if self.is_costly(kept):
                return self._known(kept)
            content = self.content(kept) if kept.job.identity else None
            return pydicom.dcmread(BytesIO(content) if content else kept.path, stop_before_pixels=True, force=True)
        described = self.patient(kept.job)
        for keyword, value in self._differences(kept, described.SOPInstanceUID).items():
            setattr(described, keyword, value)
        return described

    def _differences(self, kept: Kept, rtstruct_uid: str) -> dict[str, Any]:
        """In what a result differs from the RTSTRUCT of its job."""
        own: dict[str, Any] = {"SOPClassUID": kept.sop_class_uid, "SOPInstanceUID": kept.sop_instance_uid}
        if kept.sop_class_uid == EncapsulatedPDFStorage:
            series = {"Modality": "DOC", "SeriesInstanceUID": report.series_uid(rtstruct_uid), "InstanceNumber": 1}
            return own | series | {"SeriesNumber": report.SERIES_NUMBER, "SeriesDescription": report.SERIES_DESCRIPTION}
        if kept.sop_class_uid == SegmentationStorage:
            grid = self.memory.header(kept.job).grid
            series = {"Modality": "SEG", "SeriesInstanceUID": seg.series_uid(rtstruct_uid)}
            series |= {"SeriesNumber": seg.SERIES_NUMBER, "SeriesDescription": seg.SERIES_DESCRIPTION}
            return own | series | {"Rows": grid.rows, "Columns": grid.columns, "BitsAllocated": 1}
        return own

    def patient(self, job: Job) -> Dataset:
        """The attributes in front of an RTSTRUCT's sequences.

        Of a job's RTSTRUCT: patient, study, series.

        :raises NotKept: if it was deleted in the meantime.
        """
        try:
            with self.service.storage.result(job.id, RTSTRUCT).open("rb") as file:
                head = file.read(HEAD_BYTES)
        except (FileNotFoundError, ResultNotFound) as error:
            raise NotKept(what="instance") from error
        elements = _first_elements(head[dataset_start(head) :])
        uids = self.service.vault.uids(job)
        for tag, value in elements.items():
            text = value.rstrip(b"\0").decode("ascii", "replace")
            if text in uids:
                elements[tag] = uids[text].encode()
        elements |= dict(split_elements(self.service.vault.attributes(job)))
        return pydicom.dcmread(BytesIO(encode_dataset(elements)), force=True)


def _first_elements(content: bytes) -> dict[int, bytes]:
    """The elements in front of the sequences of an RTSTRUCT of ours."""
    found = {}
    try:
        for tag, value in split_elements(content):
            if tag >= _SEQUENCES:
                break
            found[tag] = value
    except struct.error:  # the end of what was read
        pass
    return found
