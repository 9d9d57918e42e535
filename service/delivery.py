"""Results as they are handed out.

With the patient and the true UIDs in them again, and what is made of others on demand.
"""

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.ct.series_geometry import read_series_geometry
from oarlock.errors import ResultNotFound
from oarlock.pictures.slice_archive import load_rendering
from oarlock.seg.writer import to_segmentation
from oarlock.settings import Settings
from oarlock.store.files import GEOMETRY, RENDERING, RTSTRUCT, Storage
from oarlock.store.jobs import Job, JobId
from service.container import Service

_ONE_AT_A_TIME: Final = threading.Lock()
"""Held while a segmentation is made: its masks are in memory meanwhile."""


def read_result(service: Service, job: Job, name: str) -> bytes:
    """A result as it was written.

    :raises ResultNotFound: if there is none; so in the functions below.
    """
    try:
        return service.storage.result(job.id, name).read_bytes()
    except FileNotFoundError as error:  # purged in this very moment
        raise ResultNotFound(what=name) from error


def rtstruct_of(service: Service, job: Job) -> bytes:
    """The RTSTRUCT of a finished job."""
    return service.vault.rtstruct(job, read_result(service, job, RTSTRUCT))


def segmentation_of(service: Service, job: Job) -> bytes:
    """The DICOM Segmentation of a finished job.

    It is made of what is kept with the job.
    """
    rtstruct = rtstruct_of(service, job)
    header = with_true_uids(kept_header(job.id, service.settings, service.storage), service.vault.uids(job))
    with _ONE_AT_A_TIME:
        return to_segmentation(rtstruct, header, load_rendering(service.storage.result(job.id, RENDERING)))


def kept_header(job_id: JobId, settings: Settings, storage: Storage) -> SeriesHeader:
    """Where the slices of a job's series lie.

    Older jobs lack that file: their images are read instead.
    """
    try:
        return read_series_geometry(storage.result(job_id, GEOMETRY))
    except ResultNotFound:
        return check_headers(storage.input_files(job_id), max_slices=settings.max_slices, refuse_gaps=False)


def with_true_uids(header: SeriesHeader, uids: Mapping[str, str]) -> SeriesHeader:
    """The series as its sender knows it."""
    named = ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid")
    true = {name: uids.get(uid, uid) for name in named if (uid := getattr(header, name))}
    instances = (replace(one, sop_instance_uid=uids.get(one.sop_instance_uid, one.sop_instance_uid)) for one in header.instances)
    return replace(header, instances=tuple(instances), **true)
