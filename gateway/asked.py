"""What people ask of the gateway through the service.

Fetch a series, count one as whole, send results again.

The gateway reports every few seconds, and is answered with all that it holds. Nothing of this is kept here: after a restart the
next report brings it again, and doing it again comes to the same, because the same bytes make no second job.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Final

from gateway.configuration import Configuration, Peer
from gateway.dimse import retrieving
from gateway.dimse.retrieving import Brought, Wanted
from gateway.errors import PeerFailed, ServiceAway, ServiceRefused
from gateway.inbox import Inbox
from gateway.service_client import ServiceClient, Task, to_time
from gateway.settings import GatewaySettings
from gateway.store import Store, series_id

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
"""How often an archive is asked for a series that it does not give, over five minutes."""

FIRST_WAIT_S: Final = 20.0
SHOWN: Final = 200
"""Most series that a report names."""


@dataclass(frozen=True, slots=True)
class Work:
    """A retrieval that this gateway holds.

    :ivar brought: what came; None until the archive has given it.
    :ivar outcome: its end, as the service is to be told; empty until then.
    """

    task: Task
    attempts: int = 0
    next_at: float = 0.0
    brought: Brought | None = None
    outcome: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a series: its job, or why it has none."""

    job: str | None
    why_not: str = ""


class Asked:
    """Reports to the service, and does what it is asked.

    :param fetch: brings a series here; another one in tests.
    """

    def __init__(
        self,
        store: Store,
        service: ServiceClient,
        configuration: Configuration,
        inbox: Inbox,
        *,
        settings: GatewaySettings,
        fetch: Callable[..., Brought] = retrieving.fetch,
    ) -> None:
        self._store, self._service, self._configuration, self._inbox = store, service, configuration, inbox
        self._name, self._every_s, self._fetch = settings.called, settings.report_s, fetch
        self._next_report, self._away = 0.0, False
        self._work: dict[str, Work] = {}
        self._ended: set[tuple[str, int]] = set()
        self._done: dict[str, dict[str, Any]] = {}
        self._lock = Lock()

    # ── reporting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def report(self) -> None:
        """Say what is here, and take what is asked.

        The first once it is time; what is asked and takes no time is done at once.
        """
        if self._inbox.now() < self._next_report:
            return
        self._next_report = self._inbox.now() + self._every_s
        archives = [peer.name for peer in self._configuration.peer if peer.archive and peer.listens]
        try:
            tasks = self._service.report(self._name, archives, self._series())
        except (ServiceAway, ServiceRefused) as reason:
            if not self._away:
                log.warning("the service takes no report", extra={"reason": str(reason)})
            self._away = True
            return
        self._away = False
        self._take(tasks)

    def _series(self) -> list[dict[str, Any]]:
        """What is here and is not a job, without UIDs."""
        found = []
        for series, images, refused in self._store.without_job(SHOWN):
            state = "left_alone" if series.note else "coming_in" if series.changed else "refused"
            entry: dict[str, Any] = {"id": series.id, "state": state, "calling": series.calling, "called": series.called}
            entry |= {"images": images, "first_at": to_time(series.first_at), "last_at": to_time(series.last_at)}
            found.append(entry | {"note": (series.note or ("" if series.changed else refused))[:500]})
        return found

    def _take(self, tasks: list[Task]) -> None:
        """Keep the work on what is still asked, begin what is new, drop what is not asked any more."""
        with self._lock:
            self._ended &= {(task.id, task.token) for task in tasks}
            retrievals = [task for task in tasks if task.kind == "retrieve" and (task.id, task.token) not in self._ended]
            known = self._work
            self._work = {task.id: replace(known[task.id], task=task) if task.id in known else Work(task) for task in retrievals}
        # What was done once is told again, not done again, where the answer to its outcome was lost.
        at_once = [task for task in tasks if task.kind != "retrieve"]
        self._done = {task.id: self._done.get(task.id) or self._do(task) for task in at_once}
        for task in at_once:
            self._tell(task, self._done[task.id])

    def _do(self, task: Task) -> dict[str, Any]:
        """Do what takes no time; its outcome."""
        if task.kind == "complete":
            series = str(task.wanted["series"])
            if self._store.force(series) or self._was_posted(series):
                return _succeeded()
            return _failed("The gateway has no such series any more, its rules leave it alone, or the service refused it.")
        if task.kind == "resend":
            job, place = str(task.wanted["job_id"]), task.wanted["place"]
            done = self._store.resend(job, self._inbox.now(), place=place)
            return _succeeded() if done else _failed("The gateway knows no result of this job any more.")
        return _failed(f"This gateway is too old to do this ({task.kind}).")

    def _was_posted(self, series: str) -> bool:
        """Whether it was counted as whole before, perhaps by this gateway before it was started again."""
        found, posts = self._store.one_series(series), self._store.posts(series=series)
        return found is not None and not found.note and bool(posts) and posts[-1].state != "refused"

    def _tell(self, task: Task, outcome: dict[str, Any]) -> bool:
        """Tell the service how a task stands; False where it has to be told again."""
        try:
            self._service.tell_task(self._name, task, **outcome)
        except ServiceAway:
            return False
        except ServiceRefused as refusal:
            log.warning("the service does not note an outcome", extra={"request": task.id, "code": refusal.code})
            if outcome["state"] == "succeeded":  # untold, the request would stay open as long as this gateway reports
                return self._tell(task, _failed(f"It was done, but the service did not note how it ended ({refusal.code})."))
        if outcome["state"] != "running":
            log.info("request ended", extra={"request": task.id, "kind": task.kind, "state": outcome["state"]})
        return True

    # ── fetching ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def fetch(self) -> None:
        """Go on with each retrieval.

        Fetch it, wait for its job, tell the service.
        """
        for work in list(self._work.values()):
            if work.next_at <= self._inbox.now():
                self._go_on(work)

    def _go_on(self, work: Work) -> None:
        if work.outcome is None and work.brought is None:
            work = self._bring(work)
        if work.outcome is None and work.brought is not None:
            work = replace(work, outcome=self._outcome(work.task, work.brought))
        with self._lock:
            if work.task.id not in self._work:  # it is not asked any more
                return
            work = self._work[work.task.id] = replace(work, task=self._work[work.task.id].task)  # with its newest token
        if work.outcome is not None and self._tell(work.task, work.outcome):
            with self._lock:
                self._ended.add((work.task.id, work.task.token))
                self._work.pop(work.task.id, None)

    def _bring(self, work: Work) -> Work:
        """Ask the archive once."""
        wanted, titles = work.task.wanted, self._configuration.titles
        title = str(wanted["called"] or titles[0])
        archive = self._archive(str(wanted["archive"]))
        if title not in titles:
            return replace(work, outcome=_failed(f"{title} is not one of this gateway's titles ({', '.join(titles)})."))
        if archive is None:
            return replace(work, outcome=_failed("The archive is not in this gateway's configuration any more."))
        asked = Wanted(
            wanted["series_instance_uid"], wanted["study_instance_uid"] or "", wanted["structure_sets"], wanted["priors"]
        )
        try:
            brought = self._fetch(archive, title, asked, self._store, self._inbox)
        except PeerFailed as reason:
            return self._failed_once(work, f"{archive.name}: {reason}", final=reason.final)
        except Exception as error:
            log.exception("a retrieval failed", extra={"request": work.task.id})
            return self._failed_once(work, f"It failed ({type(error).__name__}); the gateway's log says where.", final=False)
        log.info("series fetched", extra={"request": work.task.id, "archive": archive.name, "files": brought.files})
        self._tell(work.task, {"state": "running", "detail": f"{brought.files} files came.", "instances": brought.files})
        return replace(work, brought=brought)

    def _failed_once(self, work: Work, why: str, *, final: bool) -> Work:
        attempts = work.attempts + 1
        if final or attempts == ATTEMPTS:
            return replace(work, outcome=_failed(why))
        wait = FIRST_WAIT_S * 2 ** (attempts - 1)
        self._tell(work.task, {"state": "running", "detail": f"{why} (tried again in {wait:.0f} s)"})
        return replace(work, attempts=attempts, next_at=self._inbox.now() + wait)

    def _archive(self, name: str) -> Peer | None:
        return next((peer for peer in self._configuration.peer if peer.name == name and peer.archive), None)

    def _outcome(self, task: Task, brought: Brought) -> dict[str, Any] | None:
        """The end of a retrieval whose files are here: its job, or why there is none; None while that is open."""
        title = str(task.wanted["called"] or self._configuration.titles[0])
        came = [self._came_of(series_id(uid, title)) for uid in (task.wanted["series_instance_uid"], *brought.priors)]
        settled = [one for one in came if one is not None]
        if len(settled) < len(came):
            return None
        main, priors = settled[0], settled[1:]
        if main.job is None:
            return _failed(main.why_not) | {"instances": brought.files}
        jobs = [prior.job for prior in priors if prior.job is not None]
        refused = [f"an earlier series has no job: {prior.why_not}" for prior in priors if prior.job is None]
        detail = "; ".join(filter(None, [brought.note, *refused]))[:500] or None
        return _succeeded() | {"job_id": main.job, "prior_jobs": jobs, "instances": brought.files, "detail": detail}

    def _came_of(self, series: str) -> Came | None:
        """What came of a series; None while that is open."""
        found = self._store.one_series(series)
        if found is None:
            return Came(None, "Nothing that came is a CT image of this series.")
        if found.note:
            return Came(None, f"The gateway's rules leave it alone: {found.note}.")
        posts = self._store.posts(series=series)
        if found.changed or not posts:
            return None
        if posts[-1].state == "refused":
            return Came(None, posts[-1].note)
        return None if posts[-1].job is None else Came(posts[-1].job)


def _succeeded() -> dict[str, Any]:
    return {"state": "succeeded"}


def _failed(why: str) -> dict[str, Any]:
    return {"state": "failed", "detail": why[:500]}
