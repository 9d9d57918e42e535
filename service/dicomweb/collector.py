"""From received instances to jobs.

A series becomes one when nothing of it has come for a while.

A sender cannot say that a series is complete; requests are split, and one may hold several series. So a job is made when the
series has been quiet for ``stow_quiet_s`` and is whole by its own geometry. One that is not whole waits six times as long, and is
refused then: its instances stay, and each one that still comes begins the wait anew.

Of a series that is a job already, the same bytes make no second one. New instances make a job of the whole stack, if the images
of the earlier one are kept as they were sent: it takes the place of that one, which is cancelled if it is still queued.
An instance that comes again with other bytes is a correction: the newest of each SOP Instance UID counts.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from oarlock.ct.intake import take_in
from oarlock.ct.sorting import DicomFile
from oarlock.dicom.elements import read_elements
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.errors import JobAlreadyEnded, OarlockError, SeriesError, TransientError
from oarlock.store.audit import Actor
from oarlock.store.files import Incoming
from oarlock.store.jobs import Job, JobState
from oarlock.store.received import Collected, Refusal, is_quiet
from oarlock.store.retention import Retention
from service.background.periodic import attempt
from service.container import Service
from service.intake.submission import Choices, Post, check_choices, check_writable

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
PATIENCE: Final = 6
"""How many times the quiet time a series waits that is not whole."""

KEEP_REFUSED_S: Final = 7 * 86_400.0
"""How long instances stay of which no job could be made."""

_ALIVE: Final = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED})


class Collector:
    """Makes jobs of what was received."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tried: dict[str, float] = {}

    def collect(self) -> None:
        """Look at every folder once."""
        for collected in self._service.received.all():
            attempt(partial(self._look_at, collected))

    def _look_at(self, collected: Collected) -> None:
        if collected.refusal is not None and collected.changed_at <= collected.refusal.at:
            if is_quiet(collected, KEEP_REFUSED_S):
                self._service.received.delete(collected.key)
                log.warning("received instances of which no job could be made were deleted", extra={"received": collected.key})
            return
        quiet_s = self._service.settings.stow_quiet_s
        patience_is_over = is_quiet(collected, PATIENCE * quiet_s)
        if is_quiet(collected, quiet_s) and (patience_is_over or self._tried.get(collected.key) != collected.changed_at):
            self._tried[collected.key] = collected.changed_at
            self._make(collected, last_try=patience_is_over)

    def _make(self, collected: Collected, *, last_try: bool) -> None:
        try:
            job = self._job_of(collected)
        except TransientError:
            self._tried.pop(collected.key, None)  # tried again the next time
            raise
        except OarlockError as error:
            if isinstance(error, SeriesError) and not last_try:
                return
            self._service.received.refuse(collected, Refusal(error.code, error.title, error.detail, collected.changed_at))
            log.warning("no job could be made of received instances", extra={"received": collected.key, "error": error.code})
        else:
            self._service.received.settle(collected)
            about = {"received": collected.key, "job_id": job.id, "instances": len(collected.files)}
            log.info("received instances are a job", extra=about)
        self._tried.pop(collected.key, None)

    def _job_of(self, collected: Collected) -> Job:
        """The job that is made of a folder, or that holds all of it already.

        Killed at any point, it is called again: the folder's nonce and what the job is made of are the key by which it is found.
        """
        service, sender = self._service, collected.about.sender
        retention = Retention(sender.keep_input_s, sender.keep_results_s)
        choices = check_choices({}, service.available(sender.profile), retention)
        earlier = self._earlier(collected, choices)
        kept = [] if earlier is None else service.storage.input_files(earlier.id)
        came = _newest(collected.files)
        before = {_digest(path): path for path in kept}
        if earlier is not None and {path.name for path in came.values()} <= before.keys():
            return earlier
        choices = replace(choices, supersedes=earlier.id if earlier is not None else None)
        stay = {digest: path for digest, path in before.items() if _sop_instance(path) not in came}
        files = {path.name: path for path in came.values()} | stay
        with service.storage.incoming() as incoming:
            _link(files.values(), incoming)
            header = take_in(incoming.files, service.settings.intake_rules)
            check_writable(choices.profile, header)
            header, identity = service.vault.lock_away(incoming, header)
            digest = hashlib.sha256("".join(sorted(files)).encode()).hexdigest()
            by, key = Actor(sender.id, sender.name, sender.address), f"received {collected.about.nonce} {digest}"
            post = Post(incoming, header, choices, key=key, digest=digest, by=by, identity=identity, site=sender.site)
            job = service.intake.submit(post)
        if earlier is not None and earlier.id != job.id:
            self._cancel_if_queued(earlier, by)
        return job

    def _earlier(self, collected: Collected, choices: Choices) -> Job | None:
        """The newest job of the same series, model and profile whose images are kept as they were sent."""
        site, uid = collected.about.sender.site, collected.about.series_instance_uid
        jobs, _ = self._service.store.page(site=site, series_instance_uid=uid)
        for job in jobs:
            same = (job.site, job.model, job.profile) == (site, choices.model, choices.profile.name)
            if same and job.state in _ALIVE:
                return job if job.identity is None and job.input_purged_at is None else None
        return None

    def _cancel_if_queued(self, job: Job, by: Actor) -> None:
        if self._service.store.get(job.id).state is JobState.QUEUED:
            try:
                self._service.store.request_cancel(job.id, by=by)
            except JobAlreadyEnded:
                return


def _newest(files: Iterable[Path]) -> dict[str, Path]:
    """The file that came last of each SOP Instance UID."""
    return {_sop_instance(path): path for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))}


def _sop_instance(path: Path) -> str:
    """The SOP Instance UID of a file; its path where none can be read, which is then the intake's to refuse."""
    try:
        header = read_elements(path, {Tag.SOP_INSTANCE_UID}, keep=lambda _: True)
    except Unusable:
        header = None
    uid = "" if header is None else DicomFile(1, header).uid(Tag.SOP_INSTANCE_UID)
    return uid or str(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(files: Iterable[Path], incoming: Incoming) -> None:
    """Put files into an upload: under a second name, or as copies where the file system has one name a file."""
    for path in files:
        place = incoming.next_file()
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)
