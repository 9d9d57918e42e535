"""From whole series to jobs, and from jobs to deliveries.

The jobs are the service's; a delivery is a result that is to go home.

Each step reads the table, does one thing, and writes what came of it; killed between any two, it is repeated. A post is repeated
with the same key and the same files, so the service makes one job of it.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from gateway.completeness import Because, SeriesFacts, Waits, due
from gateway.configuration import Configuration
from gateway.errors import ServiceAway, ServiceRefused
from gateway.instances import is_approved, is_gapless, listed_by, read_texts
from gateway.rules import Route, route
from gateway.service_client import ServiceClient
from gateway.store import OPEN, Post, Return, Series, Store

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 60.0
LOOK_S: Final = 2.0
"""Seconds between two looks at a job; with many jobs longer, so that one gateway stays below ten calls a second."""


class Posting:
    """Turns series into jobs.

    :param clock: seconds since 1970.
    """

    def __init__(
        self,
        data: Path,
        store: Store,
        service: ServiceClient,
        configuration: Configuration,
        *,
        waits: Waits,
        clock: Callable[[], float],
    ) -> None:
        self._data, self._store, self._service = data, store, service
        self._configuration, self._waits, self._clock = configuration, waits, clock
        self._gapless: dict[str, tuple[int, bool]] = {}
        self._rests: dict[str, float] = {}

    def step(self) -> None:
        """Do what is due; no series keeps another waiting.

        Whatever goes wrong with it.
        """
        for series in self._store.series(changed=True):
            self._attempt(f"series {series.id}", partial(self._look_at, series))
        for post in self._store.posts(states=("waiting",), due=self._clock()):
            self._attempt(f"post {post.id}", partial(self._send, post))
        running = self._store.posts(states=("posted",))
        for post in running:
            if post.next_at <= self._clock():
                self._attempt(f"post {post.id}", partial(self._follow, post, len(running)))
        for post in self._store.posts(states=("failed",), due=self._clock()):
            self._attempt(f"post {post.id}", partial(self._look_again, post))
        self._attempt("structure sets", self._match_structure_sets)
        for back in self._store.to_give_back(self._clock()):
            self._attempt(f"return {back.post}", partial(self._give_back, back))

    def _attempt(self, subject: str, do: Callable[[], None]) -> None:
        """Do something about a subject, unless that failed a moment ago for a reason that nobody foresaw (a file is gone)."""
        if self._rests.get(subject, 0.0) > self._clock():
            return
        try:
            do()
        except Exception:
            log.exception("failed", extra={"subject": subject})
            self._rests[subject] = self._clock() + LONGEST_WAIT_S
        else:
            self._rests.pop(subject, None)

    # ── is it whole? ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_at(self, series: Series) -> None:
        images = self._store.images(series.id)
        known = self._gapless.get(series.id)
        gapless = known[1] if known is not None and known[0] == series.revision else None
        facts = self._facts(series, set(images), gapless)
        when, because = due(facts, self._waits)
        if when > self._clock():
            return
        if gapless is None and because in (Because.COUNTED, Because.RELEASED):
            self._gapless[series.id] = (series.revision, is_gapless([self._data / path for path, _ in images.values()]))
            self._look_at(series)
            return
        self._gapless.pop(series.id, None)
        self._decide(series, images, because)

    def _facts(self, series: Series, images: set[str], gapless: bool | None) -> SeriesFacts:
        structure_sets = self._store.structure_sets(series.uid).values()
        listed = frozenset().union(*(listed_by(self._data / path, series.uid) for path, _ in structure_sets))
        return SeriesFacts(
            last_at=series.last_at,
            images=len(images),
            announced=self._store.announced(series.uid),
            listed=bool(listed),
            listed_missing=len(listed - images),
            one_association=self._store.one_association_brought(series.id),
            gapless=gapless,
            forced=series.forced,
        )

    def _decide(self, series: Series, images: dict[str, tuple[str, str]], because: Because) -> None:
        """Make a post of a series that came whole, or leave it alone."""
        chosen = self._route(series, images)
        if chosen.ignored:
            self._store.leave_alone(series, chosen.ignored)
            log.info("series left alone", extra={"series": series.id, "rule": chosen.rule})
            return
        structure_sets = self._store.structure_sets(series.uid)
        files = [*(path for path, _ in images.values()), *(path for path, _ in structure_sets.values())]
        digests = [digest for _, digest in (*images.values(), *structure_sets.values())]
        key = idempotency_key(series, digests, chosen)
        if any(post.key == key and post.state != "refused" for post in self._store.posts(series=series.id)):
            self._store.leave_as_posted(series)
            return
        post = self._store.add_post(series, chosen, files, key, self._clock())
        if post is not None:
            log.info("series is whole", extra={"series": series.id, "post": post, "images": len(images), "because": because})

    def _route(self, series: Series, images: dict[str, tuple[str, str]]) -> Route:
        """By the first image that is not a localizer, or else the first."""
        texts = None
        for path, _ in images.values():
            found = read_texts(self._data / path)
            texts = texts or found
            if "LOCALIZER" not in found.image_types:
                texts = found
                break
        assert texts is not None
        chosen = route(texts, series.sent, self._configuration)
        return replace(chosen, places=(), priority="low", for_qa=True) if self._store.is_prior(series.id) else chosen

    # ── to the service ────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, post: Post) -> None:
        before = None if post.supersedes is None else self._store.one_post(post.supersedes)
        if before is not None and before.state == "waiting":
            return  # its answer may have been lost on the way: what came of it has to be known first
        self._store.change_post(post.id, attempts=post.attempts + 1)
        fields = {"priority": post.route.priority}
        fields |= {"model": post.route.model} if post.route.model else {}
        fields |= {"profile": post.route.profile} if post.route.profile else {}
        replaced = before.job if before is not None else None
        fields |= {"supersedes": replaced} if replaced else {}
        key = f"{post.key}-{replaced}" if replaced else post.key  # to the service another field is another post
        try:
            job = self._service.post_series([self._data / path for path in post.files], fields, key)
        except ServiceAway as away:
            self._wait(post, away)
        except ServiceRefused as refusal:
            note = f"{refusal.code}: {refusal}" if refusal.code else str(refusal)
            self._store.change_post(post.id, state="refused", note=note, ended_at=self._clock())
            log.warning("series refused", extra={"series": post.series, "post": post.id, "code": refusal.code})
        else:
            self._store.change_post(post.id, state="posted", job=job.id, note="", next_at=self._clock())
            log.info("series posted", extra={"series": post.series, "post": post.id, "job_id": job.id})

    def _wait(self, post: Post, away: ServiceAway) -> None:
        wait = max(away.retry_after_s or 0.0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(post.attempts, 10)))
        self._store.change_post(post.id, next_at=self._clock() + wait, note=str(away))
        log.warning("the service is away", extra={"post": post.id, "reason": str(away), "again_in_s": wait})

    def _follow(self, post: Post, running: int) -> None:
        """See what became of a job; make the one that it takes the place of give way."""
        assert post.job is not None
        if not self._give_way(post.supersedes):
            return
        try:
            job = self._service.job(post.job)
        except ServiceAway as away:
            self._store.change_post(post.id, next_at=self._clock() + LONGEST_WAIT_S / 4, note=str(away))
            return
        except ServiceRefused as refusal:
            self._store.change_post(post.id, state="failed", note=str(refusal), ended_at=self._clock())
            return
        if job.state == "succeeded":
            self._store.succeed(post, self._clock())
        elif job.ended:
            self._store.change_post(post.id, state="failed", note=job.detail or "the job was cancelled", ended_at=self._clock())
        else:
            self._store.change_post(post.id, next_at=self._clock() + max(LOOK_S, running / 10), note=job.state)

    def _look_again(self, post: Post) -> None:
        """Follow a job that failed and that somebody has tried again since; its results are to go home too."""
        now, failed_at = self._clock(), post.ended_at or post.made_at
        self._store.change_post(post.id, next_at=now + max(LONGEST_WAIT_S, (now - failed_at) / 10))
        try:
            again = post.job is not None and self._service.job(post.job).state not in ("failed", "cancelled")
        except (ServiceAway, ServiceRefused):
            return
        if again:
            self._store.change_post(post.id, state="posted", note="", ended_at=None)

    def _give_way(self, superseded: int | None) -> bool:
        """Stop the job of a post that another one takes the place of; False if the service is away."""
        if superseded is None or (before := self._store.one_post(superseded)).state == "superseded":
            return True
        if before.state == "posted" and before.job is not None:
            try:
                self._service.cancel(before.job)
            except ServiceAway:
                return False
            except ServiceRefused:
                pass  # nothing that can be done, and its result is not delivered
        self._store.supersede(before.id, self._clock())
        log.info("post superseded", extra={"series": before.series, "post": before.id, "job_id": before.job})
        return True

    # ── contours that come with a series, or back ─────────────────────────────────────────────────────────────────────

    def _match_structure_sets(self) -> None:
        """Decide about each RTSTRUCT that came after its series was posted."""
        for uid, path in self._store.loose_structure_sets().items():
            if self._store.is_ours(uid):
                self._store.set_aside(uid, "it is what was delivered from here")
                continue
            said = {self._match(series, uid, path) for series in self._store.drawn_on(uid)}
            if None not in said:
                why = "; ".join(sorted(filter(None, said)))
                self._store.set_aside(uid, why)
                log.info("structure set set aside", extra={"reason": why})

    def _match(self, series: Series, uid: str, path: str) -> str | None:
        """What was done with an RTSTRUCT that belongs to a series; None while that is open, or where a post holds it."""
        posts = self._store.posts(series=series.id)
        if series.changed or not posts or any(path in post.files for post in posts):
            return None
        latest = posts[-1]
        if not is_approved(self._data / path):
            return self._match_unapproved(series, latest)
        if latest.state in OPEN:
            return None
        if latest.state != "succeeded":
            return "its job did not succeed"
        self._store.give_back(latest.id, uid, self._clock())
        return "given back to its job"

    def _match_unapproved(self, series: Series, latest: Post) -> str | None:
        """While its job waits the RTSTRUCT joins it: there will be a new one with both."""
        if latest.state in OPEN and latest.note in ("", "queued"):
            self._store.touch(series.id)
        if latest.state in OPEN and latest.note != "running":
            return None
        return "it came after its job had begun, and it is not approved"

    def _give_back(self, back: Return) -> None:
        post, path = self._store.one_post(back.post), self._store.structure_set_path(back.structure_set)
        if path is None or post.job is None:
            self._store.given_back(back, "gone", "it is not here any more", self._clock())
            return
        try:
            self._service.return_contours(post.job, (self._data / path).read_bytes())
        except ServiceAway as away:
            wait = max(away.retry_after_s or 0.0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(back.attempts, 10)))
            self._store.given_back(back, "waiting", str(away), self._clock() + wait)
        except ServiceRefused as refusal:
            self._store.given_back(back, "refused", f"{refusal.code}: {refusal}", self._clock())
        else:
            self._store.given_back(back, "given", "", self._clock())
            log.info("approved contours given back", extra={"post": post.id, "job_id": post.job})


def idempotency_key(series: Series, digests: list[str], chosen: Route) -> str:
    """The idempotency key of some files.

    The same for the same bytes on the same route, in any order.
    """
    what = "|".join([*sorted(digests), chosen.model or "", chosen.profile or "", chosen.priority, *["qa"] * chosen.for_qa])
    return f"gateway-{series.id}-{hashlib.sha256(what.encode()).hexdigest()[:40]}"
