"""Submission: from an upload to a job.

The upload was checked, and the job will not be lost.

The order is the promise. The files are on the disk before the row is in the table; the row is in the table before the message is
on the queue; only then is the post answered with 202. A crash after the first step leaves a folder without a row, which the
sweeper deletes; after the second, a queued job without a message, which the sweeper sends.

If the queue cannot be reached the answer is 503, and row and files are deleted: a sender who is told "not accepted" posts again,
and would otherwise have two jobs of one series.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from uuid import uuid4

from oarlock.ct.series import SeriesHeader
from oarlock.errors import InvalidParameter, ModelGone, UnknownModel
from oarlock.facts import ModelFacts, Notice
from oarlock.rtstruct.profiles import Profile, profile_named
from oarlock.rtstruct.writer import roi_names
from oarlock.segmentation.manifest import ModelManifest
from oarlock.segmentation.model_folder import Installed
from oarlock.store.audit import Actor
from oarlock.store.files import Incoming, Storage
from oarlock.store.job_store import JobStore, NewJob
from oarlock.store.jobs import Job, JobId, JobState, Priority
from oarlock.store.retention import Retention
from service.background.webhooks.rules import Rules
from service.broker import Broker
from service.errors import BrokerUnavailable

IDEMPOTENCY_KEY_LIMIT: Final = 255
LABEL_LIMIT: Final = 64

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SUPERSEDES: Final = Notice(
    "series.supersedes",
    "More of the series came after it had been contoured. This job takes the place of that one, whose RTSTRUCT may have been "
    "delivered: use this one.",
)

PRIORITY_NAMES: Final[Mapping[Priority, Literal["urgent", "normal", "low"]]] = {
    Priority.URGENT: "urgent",
    Priority.NORMAL: "normal",
    Priority.LOW: "low",
}
PRIORITIES: Final[Mapping[str, Priority]] = {name: priority for priority, name in PRIORITY_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Choices:
    """What the sender chose, checked."""

    model: ModelFacts
    profile: Profile
    priority: Priority
    retention: Retention
    callback_url: str | None
    label: str | None = None
    supersedes: JobId | None = None


@dataclass(frozen=True, slots=True)
class Available:
    """What a sender can choose from, and the defaults.

    :ivar labels: whether a job may have a label.
    """

    manifests: Mapping[str, ModelManifest]
    model: str
    profiles: Mapping[str, Profile]
    profile: str
    callbacks: Rules
    labels: bool = True


def check_choices(fields: Mapping[str, str], available: Available, retention: Retention) -> Choices:
    """The form fields of a post as values.

    :param retention: how long the sender's jobs stay.
    :raises InvalidParameter: if a field is not one of its allowed values.
    :raises UnknownModel: if there is no such model.
    :raises UnknownProfile: if there is no such profile.
    """
    priority = fields.get("priority") or "normal"
    if priority not in PRIORITIES:
        raise InvalidParameter(name="priority", reason=f"must be one of {', '.join(PRIORITIES)}")
    profile = profile_named(available.profiles, fields.get("profile") or available.profile)
    callback_url = available.callbacks.check_url(fields["callback_url"]) if fields.get("callback_url") else None
    supersedes = fields.get("supersedes") or None
    if supersedes is not None and not _ID.fullmatch(supersedes):
        raise InvalidParameter(name="supersedes", reason="must be the id of a job")
    manifest = available.manifests.get(fields.get("model") or available.model)
    if manifest is None:
        raise UnknownModel(available=list(available.manifests))
    replaced = JobId(supersedes) if supersedes else None
    model = ModelFacts(manifest.name, manifest.version, manifest.sha256)
    label = _check_label(fields.get("label") or None, available)
    return Choices(model, profile, PRIORITIES[priority], retention, callback_url, label, replaced)


def _check_label(label: str | None, available: Available) -> str | None:
    """What a sender calls a job; None for nothing. It may name a patient, so a server that keeps no names takes none.

    :raises InvalidParameter: if it is too long or not printable, or if labels are not taken.
    """
    if label is None:
        return None
    if not available.labels:
        raise InvalidParameter(name="label", reason="is not taken by a server that de-identifies: it may name the patient")
    if len(label) > LABEL_LIMIT or not label.isprintable():
        raise InvalidParameter(name="label", reason=f"must be at most {LABEL_LIMIT} printable characters")
    return label


def check_model(job: Job, models: Installed) -> None:
    """Check that an ended job's model is still there.

    :raises ModelGone: if not. A server without any model says so by /readyz, and its jobs wait.
    """
    again = job.state in {JobState.FAILED, JobState.CANCELLED}
    if again and models.offered and models.of(job.model) is None:
        raise ModelGone(model=f"{job.model.name} {job.model.version}", available=models.offered)


def check_writable(profile: Profile, header: SeriesHeader) -> None:
    """Check that a profile's names can be written.

    In the character set of a series.

    :raises ProfileNotWritable: if not.
    """
    roi_names(profile, profile.styles, header)


def check_idempotency_key(key: str | None) -> str | None:
    """A key that can be stored; None if there is none.

    :raises InvalidParameter: if it is empty, too long, or not printable ASCII.
    """
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_KEY_LIMIT and key.isascii() and key.isprintable()):
        raise InvalidParameter(name="Idempotency-Key", reason=f"must be 1 to {IDEMPOTENCY_KEY_LIMIT} printable ASCII characters")
    return key


@dataclass(frozen=True, slots=True)
class Post:
    """A checked upload, and who sent it.

    :ivar key: the idempotency key; None if there is none.
    :ivar digest: of fields and files.
    :ivar identity: what was taken out of the series when it was de-identified, sealed.
    :ivar site: whose job it will be; empty for an operator's.
    """

    incoming: Incoming
    header: SeriesHeader
    choices: Choices
    key: str | None
    digest: str
    by: Actor
    identity: bytes | None = None
    site: str = ""


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes jobs in, starts them again and deletes them."""

    store: JobStore
    storage: Storage
    broker: Broker

    def submit(self, post: Post) -> Job:
        """Make a job of a post, or find its earlier one.

        The one that the same post made before.

        :raises IdempotencyConflict: if the key belongs to another post.
        :raises BrokerUnavailable: if the job could not be sent; then nothing of it is left.
        """
        earlier = None if post.key is None else self.store.find_post(post.key, post.digest, post.site)
        job = earlier or self._create(post)
        try:
            self._send(job)
        except BrokerUnavailable:
            if not self._withdraw(job, post.by):
                return job
            raise
        return self.store.get(job.id)

    def _create(self, post: Post) -> Job:
        job_id = JobId(str(uuid4()))
        self.storage.adopt(post.incoming, job_id)
        try:
            job = self._insert(job_id, post)
        except Exception:
            self.storage.purge(job_id)  # without a row nothing would ever lead to these files
            raise
        if job.id != job_id:  # a post with the same key was faster
            self.storage.purge(job_id)
        return job

    def _insert(self, job_id: JobId, post: Post) -> Job:
        new = NewJob(
            id=job_id,
            series=post.header.facts(),
            model=post.choices.model,
            profile=post.choices.profile.name,
            retention=post.choices.retention,
            callback_url=post.choices.callback_url,
            identity=post.identity,
            site=post.site,
            label=post.choices.label,
            priority=post.choices.priority,
            warnings=(*post.header.warnings, *([SUPERSEDES] if post.choices.supersedes else [])),
            supersedes=post.choices.supersedes,
            idempotency_key=post.key,
            content_sha256=post.digest,
        )
        return self.store.create(new, by=post.by)

    def _send(self, job: Job) -> None:
        """Put a job's message on the queue; an earlier post's job that is past that needs none."""
        if job.attempts or job.state.ended:
            return
        self.broker.enqueue(job)
        if not self.store.marked_sent(job.id):
            raise BrokerUnavailable  # a post with the same key withdrew the job in the meantime

    def _withdraw(self, job: Job, by: Actor) -> bool:
        """Remove a job that was not sent; False if a worker or another post has it by now."""
        if self.store.discard(job.id, by=by):
            self.storage.purge(job.id)
            return True
        return not self.store.exists(job.id)

    def retry(self, job_id: JobId, *, by: Actor) -> Job:
        """Queue an ended job again.

        If the queue is not reachable now, the sweeper sends it later: the job is accepted already.

        :raises JobNotRetryable: if it neither failed nor was cancelled.
        """
        job = self.store.retry(job_id, by=by)
        try:
            self._send(job)
        except BrokerUnavailable:
            return job
        return self.store.get(job_id)

    def purge(self, job_id: JobId, *, by: Actor) -> None:
        """Delete a job's bytes for ever.

        First the row, so that a worker that runs it can publish nothing after that.
        """
        self.store.purge(job_id, by=by)
        self.storage.purge(job_id)
        self.store.checkpoint()
