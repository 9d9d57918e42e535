"""Bringing results home: each result to each place.

A delivery is tried until the result is there, or until it is a dead letter that somebody sees.
"""

import logging
from collections.abc import Callable
from typing import Final

from gateway.configuration import Configuration, Place
from gateway.errors import PeerFailed, ServiceAway, ServiceRefused
from gateway.metrics import SENT
from gateway.places import deliver
from gateway.results import Finished, finish
from gateway.service_client import ServiceClient
from gateway.store import Delivery, Post, Series, Store

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 10.0
LONGEST_WAIT_S: Final = 600.0
DEAD_KEPT_S: Final = 30 * 86_400.0
"""How long a series and its job are kept for a dead letter that nobody sends again."""


class Delivering:
    """Takes results from the service to their places.

    It tells the service what became of them.

    :param clock: seconds since 1970.
    :param attempts: how often a delivery is tried.
    """

    def __init__(
        self, store: Store, service: ServiceClient, configuration: Configuration, *, attempts: int, clock: Callable[[], float]
    ) -> None:
        self._store, self._service, self._configuration = store, service, configuration
        self._attempts, self._clock = attempts, clock

    def places(self) -> set[str]:
        """Names of all places that something waits for."""
        return {one.place for one in self._store.deliveries(states=("waiting",))}

    def step(self, place: str) -> None:
        """Try what is due at a place; others do not wait."""
        for delivery in self._store.deliveries(states=("waiting",), place=place, due=self._clock()):
            post = self._store.one_post(delivery.post)
            if post.job is None or not self._try(delivery, post, post.job):
                return

    def _try(self, delivery: Delivery, post: Post, job: str) -> bool:
        """One attempt; False where there is no use in trying the next one now."""
        try:
            finished = self._fetch(job, delivery.result)
            if finished is None:
                self._end(delivery, "dropped", "this service does not offer it", None)
                return True
            series = self._store.one_series(post.series)
            deliver(self._place(delivery.place), finished, self._title(series), series.uid if series else "")
        except ServiceAway as away:
            if away.broken:
                return self._failed(delivery, job, str(away), final=False)
            self._store.change_delivery(delivery.id, next_at=self._clock() + (away.retry_after_s or FIRST_WAIT_S), note=str(away))
            return False
        except (PeerFailed, ServiceRefused) as reason:
            final = isinstance(reason, ServiceRefused) or reason.final
            return self._failed(delivery, job, str(reason), final=final)
        except Exception as error:  # what nobody foresaw is an attempt that failed: others wait behind it
            log.exception("a delivery failed", extra={"job_id": job, "place": delivery.place})
            return self._failed(delivery, job, f"it failed ({type(error).__name__}); the log says where", final=False)
        SENT.labels(delivery.place, "delivered").inc()
        log.info("delivered", extra={"job_id": job, "result": delivery.result, "place": delivery.place})
        self._end(delivery, "delivered", "", finished.uid)
        return True

    def _fetch(self, job: str, name: str) -> Finished | None:
        content = self._service.result(job, name)
        return None if content is None else finish(name, content)

    def _place(self, name: str) -> Place:
        place = self._configuration.place(name)
        if place is None:
            raise PeerFailed("it is not in the configuration any more")
        return place

    def _title(self, series: Series | None) -> str:
        """Our title as the sender called it, where it did: some peers know us by that alone."""
        titles = self._configuration.titles
        return series.called if series is not None and series.called in titles else titles[0]

    def _failed(self, delivery: Delivery, job: str, reason: str, *, final: bool) -> bool:
        SENT.labels(delivery.place, "not taken").inc()
        if final or delivery.attempts + 1 >= self._attempts:
            log.error("dead letter", extra={"job_id": job, "result": delivery.result, "place": delivery.place, "reason": reason})
            self._end(delivery, "dead", reason, None)
            return True
        wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(delivery.attempts, 10))
        log.warning("not delivered", extra={"job_id": job, "place": delivery.place, "reason": reason, "again_in_s": wait})
        self._store.change_delivery(
            delivery.id, attempts=delivery.attempts + 1, next_at=self._clock() + wait, note=reason, told=False
        )
        return True

    def _end(self, delivery: Delivery, state: str, note: str, uid: str | None) -> None:
        attempts = delivery.attempts + (state != "dropped")
        self._store.change_delivery(
            delivery.id, state=state, attempts=attempts, note=note, uid=uid, ended_at=self._clock(), told=False
        )

    # ── telling, and tidying ──────────────────────────────────────────────────────────────────────────────────────────

    def tell(self) -> None:
        """Tell the service how each delivery stands.

        So the job says when and where its results arrived.
        """
        for delivery in self._store.untold():
            job = self._store.one_post(delivery.post).job
            if job is not None and delivery.state != "dropped":
                try:
                    self._service.tell_delivery(job, delivery)
                except ServiceAway:
                    return
                except ServiceRefused as refusal:
                    log.warning("the service does not note a delivery", extra={"job_id": job, "code": refusal.code})
            self._store.told(delivery)

    def tidy(self) -> None:
        """Purge jobs whose rule says so, and forget old series."""
        for post in self._store.posts(states=("succeeded", "superseded", "failed")):
            keep_s = post.route.keep_s
            if post.job is not None and keep_s is not None and post.note != PURGED and self._home_since(post, keep_s):
                try:
                    self._service.purge(post.job)
                except (ServiceAway, ServiceRefused):
                    continue
                self._store.change_post(post.id, note=PURGED)

    def _home_since(self, post: Post, seconds: float) -> bool:
        """Whether all deliveries of a post ended this long ago; a dead letter is also given a month to be sent again."""
        for one in self._store.deliveries(post=post.id):
            wait = max(seconds, DEAD_KEPT_S) if one.state == "dead" else seconds
            if one.state == "waiting" or (one.ended_at or self._clock()) + wait > self._clock():
                return False
        return (post.ended_at or self._clock()) + seconds <= self._clock()

    def forget(self, keep_s: float, known_s: float) -> None:
        """Forget the images of series that are over for so long.

        Their files are deleted when the inbox is tidied.

        :param known_s: how long their jobs are known, for contours that are approved later.
        """
        for series in self._store.series(held=True):
            if self._is_over(series, keep_s):
                self._store.let_go(series)
        for series in self._store.series():
            if self._is_over(series, max(keep_s, known_s)):
                self._store.forget(series)
        unmatched = self._store.forget_loose_ends(self._clock() - keep_s)
        if unmatched:
            log.warning("structure sets forgotten: their series did not come, or has no job", extra={"count": unmatched})

    def _is_over(self, series: Series, keep_s: float) -> bool:
        if series.last_at + keep_s > self._clock() or (series.changed and not series.note):
            return False
        return all(self._over(post, keep_s) for post in self._store.posts(series=series.id))

    def _over(self, post: Post, keep_s: float) -> bool:
        if post.ended_at is None or post.ended_at + keep_s > self._clock():
            return False
        if post.job is not None and post.route.keep_s is not None and post.note != PURGED:
            return False
        if self._store.is_giving_back(post.id):
            return False
        waits = [one for one in self._store.deliveries(post=post.id) if one.state in ("waiting", "dead") or not one.told]
        return all(one.ended_at is not None and one.ended_at + DEAD_KEPT_S <= self._clock() for one in waits)


PURGED: Final = "purged from the service"
