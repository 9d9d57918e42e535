"""Metrics for Prometheus, counted from the job table.

So they hold across restarts and processes.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, product
from threading import Lock
from time import monotonic
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from oarlock.errors import TransientError, leaves
from oarlock.organs.catalogue import OARS
from oarlock.qa.checks.finding import Level
from oarlock.qa.control_chart import Rule
from oarlock.segmentation.model_folder import Installed
from oarlock.store.callbacks import CallbackStore
from oarlock.store.database import Database
from oarlock.store.deliveries import DeliveryStore
from oarlock.store.gateways import GatewayStore
from oarlock.store.job_store import JobStore
from oarlock.store.jobs import JobState
from oarlock.store.received import Received
from oarlock.store.reviews import ReviewStore
from oarlock.store.scores.read import Histogram as ScoreHistogram
from oarlock.store.scores.read import ScoreStore
from oarlock.store.scores.write import ACTION_LEVELS, BUCKETS, VERDICT, Origin
from oarlock.store.stage_times import STAGE_BUCKETS_S, StageDurations
from service.broker import Broker
from service.monitoring.health import Health

_SCORE_LABELS: Final = ("model", "model_version", "scanner", "site", "origin", "oar")

STORED: Final[Mapping[int, str]] = {
    0: "taken",
    0xA700: "no room",
    0xA900: "of another study",
    0xC000: "not understood",
    0x0122: "SOP class not taken",
}
"""What is counted of stored instances, by their Failure Reason (PS3.18 Table I.2-2)."""

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST

disable_created_metrics()  # type: ignore[no-untyped-call]  # a line for each counter that nobody asks for: since when it counts


@dataclass(frozen=True, slots=True)
class Sources:
    """What is counted from."""

    database: Database
    store: JobStore
    scores: ScoreStore
    broker: Broker
    health: Health
    models: Callable[[], Installed]
    outbox: CallbackStore
    deliveries: DeliveryStore
    reviews: ReviewStore
    received: Received
    gateways: GatewayStore
    sites: Collection[str] = ()


class Metrics:
    """Counters of this process.

    And numbers of the job table and the queue.
    """

    def __init__(self, sources: Sources, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._registry, self._table = CollectorRegistry(), _Table(sources)
        self._lock, self._begun_at, self._text = Lock(), float("-inf"), b""
        self.refusals = Counter("oarlock_refusals", "Calls that were refused, by code", ["code"], registry=self._registry)
        for leaf in leaves():
            self.refusals.labels(leaf.code)  # from 0, or the first one would not be an increase
        self.drift_alarms = Counter(
            "oarlock_drift_alarms", "Alarms of the control charts", ["model", "oar", "rule", "side"], registry=self._registry
        )
        # These too are counted from 0.
        for model, oar in {(manifest.name, oar.name) for manifest in sources.models().offered.values() for oar in manifest.oars}:
            for rule, side in product(Rule, ("higher", "lower")):
                self.drift_alarms.labels(model, oar, rule, side)
        says = "Instances that were stored by DICOMweb, by what became of them"
        self.stored = Counter("oarlock_stored_instances", says, ["outcome"], registry=self._registry)
        for outcome in STORED.values():
            self.stored.labels(outcome)
        self.requests = Histogram(
            "oarlock_request_seconds", "Time until a call was answered", ["route", "method", "status"], registry=self._registry
        )

    def exposition(self) -> bytes:
        """Everything, in the text format.

        Who asks while another is answered waits for that, and shares the next collection with all who wait.
        """
        asked_at = self._clock()
        with self._lock:
            if self._begun_at <= asked_at:
                begun_at = self._clock()
                self._text = self._table.text() + generate_latest(self._registry)
                self._begun_at = begun_at
            return self._text


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _Table:
    def __init__(self, sources: Sources) -> None:
        self._from = sources
        self._counted: object = None
        self._scores = b""

    def text(self) -> bytes:
        """The metrics that can be known now.

        Those of a dependency that does not answer are left out; /readyz names it. The database's are one transaction: from the
        first that fails on, all are left out.
        """
        families, scores = list[Metric](), b""
        for beside in (self._depth, self._models, self._received, self._disk_limit, self._disk):
            with suppress(TransientError):
                families.append(beside())
        with suppress(TransientError), self._from.database.together():
            scores = self._surface_dsc()
            families += self._counts()
        return _text(families) + scores

    def _counts(self) -> Iterator[Metric]:
        for family in (
            self._jobs,
            self._site_jobs,
            self._workers,
            self._stages,
            self._shadow_surface_dsc,
            self._shadows,
            self._reviews,
            self._callbacks,
            self._deliveries,
            self._gateways,
            self._asked,
        ):
            yield family()
        counts = self._from.scores.check_counts()
        yield from (_checks(counts), _verdicts(counts), _set_verdicts(counts), _action_levels(counts))

    def _jobs(self) -> Metric:
        jobs = GaugeMetricFamily("oarlock_jobs", "Jobs by state, without the purged ones", labels=["state"])
        for state, count in self._from.store.counts().items():
            jobs.add_metric([state], count)
        return jobs

    def _site_jobs(self) -> Metric:
        says = "Jobs that wait or run, by the site that posted them; an operator's have none"
        jobs = GaugeMetricFamily("oarlock_site_jobs", says, labels=["site", "state"])
        counted = self._from.store.open_by_site()
        sites = {site for site, _ in counted} | set(self._from.sites)
        for site, state in product(sorted(sites), (JobState.QUEUED, JobState.RUNNING)):
            jobs.add_metric([site, state], counted.get((site, state), 0))
        return jobs

    def _callbacks(self) -> Metric:
        callbacks = GaugeMetricFamily("oarlock_callbacks", "Callbacks by state; dead ones were given up", labels=["state"])
        for state, count in self._from.outbox.counts().items():
            callbacks.add_metric([state], count)
        return callbacks

    def _deliveries(self) -> Metric:
        says = "Results on their way home by state; dead ones were given up"
        deliveries = GaugeMetricFamily("oarlock_deliveries", says, labels=["state"])
        for state, count in self._from.deliveries.counts().items():
            deliveries.add_metric([state], count)
        return deliveries

    def _received(self) -> Metric:
        says = "Series that came by DICOMweb and are not a job, by state"
        series = GaugeMetricFamily("oarlock_received_series", says, labels=["state"])
        for state, count in zip(("waiting", "refused"), self._from.received.counts(), strict=True):
            series.add_metric([state], count)
        return series

    def _gateways(self) -> Metric:
        says = "Time since each gateway last reported"
        silent = GaugeMetricFamily("oarlock_gateway_silent_seconds", says, labels=["site", "gateway"])
        for gateway, seconds in self._from.gateways.silent_s():
            silent.add_metric([gateway.site, gateway.name], seconds)
        return silent

    def _asked(self) -> Metric:
        asked = GaugeMetricFamily("oarlock_gateway_requests", "What gateways are asked, by state", labels=["kind", "state"])
        for (kind, state), count in self._from.gateways.counts().items():
            asked.add_metric([kind, state], count)
        return asked

    def _disk(self) -> Metric:
        return GaugeMetricFamily(
            "oarlock_storage_free_bytes", "Free disk space of the data folder", value=self._from.health.free_bytes()
        )

    def _disk_limit(self) -> Metric:
        return GaugeMetricFamily(
            "oarlock_storage_min_free_bytes",
            "Free disk space below which nothing is accepted",
            value=self._from.health.min_free_bytes,
        )

    def _depth(self) -> Metric:
        return GaugeMetricFamily("oarlock_queue_depth", "Messages that wait for a worker", value=self._from.broker.depth())

    def _workers(self) -> Metric:
        workers = GaugeMetricFamily("oarlock_workers", "Live workers by device", labels=["device"])
        devices = [worker.device for worker in self._from.health.live_workers()]
        for device in sorted(set(devices)):
            workers.add_metric([device], devices.count(device))
        return workers

    def _stages(self) -> Metric:
        stages = HistogramMetricFamily("oarlock_stage_seconds", "Duration of each stage of all jobs", labels=["stage"])
        for entry in self._from.store.stage_times.all():
            stages.add_metric([entry.stage], _buckets(entry), entry.total_s)
        return stages

    def _models(self) -> Metric:
        models = InfoMetricFamily("oarlock_model", "Models of this server", labels=["name"])
        for manifest in self._from.models().offered.values():
            models.add_metric([manifest.name], {"version": manifest.version, "sha256": manifest.sha256})
        return models

    def _surface_dsc(self) -> bytes:
        """Half of all lines, most of them 0: the text of before stays as long as nothing was compared."""
        found, streams = self._from.scores.histograms(), self._from.scores.known_streams()
        if self._counted != (found, streams):
            self._scores, self._counted = _text([_every_organ(found, streams)]), (found, streams)
        return self._scores

    def _shadow_surface_dsc(self) -> Metric:
        says = "Surface DSC of what shadow runs drew, against what was delivered, supplied or approved"
        scores = HistogramMetricFamily("oarlock_shadow_surface_dsc", says, labels=_SCORE_LABELS)
        for entry in self._from.scores.histograms(shadow=True):
            scores.add_metric(_labels(entry), _score_buckets(entry), entry.total)
        return scores

    def _shadows(self) -> Metric:
        runs = GaugeMetricFamily("oarlock_shadow_runs", "Shadow runs by state, without those of purged jobs", labels=["state"])
        for state, count in self._from.store.shadows.counts().items():
            runs.add_metric([state], count)
        return runs

    def _reviews(self) -> Metric:
        reviews = CounterMetricFamily("oarlock_reviews", "What people said of organs of jobs", labels=["organ", "verdict"])
        for oar, verdict, count in self._from.reviews.counts():
            reviews.add_metric([oar, verdict], count)
        return reviews


def _text(families: Sequence[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


def _every_organ(found: Sequence[ScoreHistogram], streams: Iterable[tuple[str, str, str, str]]) -> Metric:
    scores = HistogramMetricFamily("oarlock_surface_dsc", "Surface DSC of all comparisons of jobs", labels=_SCORE_LABELS)
    counted = {_labels(entry): entry for entry in found}
    for stream, origin in product(streams, (Origin.SUPPLIED, Origin.APPROVED)):
        for oar in OARS:  # from 0, or the first comparison would not be an increase
            empty = ScoreHistogram(*stream, origin.value, oar.name, (0,) * len(BUCKETS), 0.0)
            counted.setdefault(_labels(empty), empty)
    for entry in counted.values():
        scores.add_metric(_labels(entry), _score_buckets(entry), entry.total)
    return scores


_Counts = Sequence[tuple[str, str, str, int]]
"""Organ, code, level and count (:meth:`oarlock.store.scores.read.ScoreStore.check_counts`)."""


def _checks(counts: _Counts) -> Metric:
    labels = ["oar", "check", "level"]
    checks = CounterMetricFamily("oarlock_qa_checks", "Findings of the checks without a reference", labels=labels)
    for oar, code, level, findings in counts:
        if code not in {VERDICT, ACTION_LEVELS}:
            checks.add_metric([oar, code, level], findings)
    return checks


def _verdicts(counts: _Counts) -> Metric:
    return _of_organs(
        counts, VERDICT, CounterMetricFamily("oarlock_qa_verdicts", "Verdicts on organs of jobs", labels=["oar", "verdict"])
    )


def _action_levels(counts: _Counts) -> Metric:
    what = "Organs of comparisons, by whether they keep the site's action levels"
    return _of_organs(counts, ACTION_LEVELS, CounterMetricFamily("oarlock_qa_action_levels", what, labels=["oar", "result"]))


def _of_organs(counts: _Counts, code: str, counted: CounterMetricFamily) -> Metric:
    for oar, found, level, organs in counts:
        if found == code and oar:
            counted.add_metric([oar, level], organs)
    return counted


def _set_verdicts(counts: _Counts) -> Metric:
    what = "Verdicts on the contours of jobs as a whole"
    verdicts = CounterMetricFamily("oarlock_qa_set_verdicts", what, labels=["verdict"])
    of_sets = {level: sets for oar, code, level, sets in counts if code == VERDICT and not oar}
    for level in Level:  # from 0, or the first red one would not be an increase
        verdicts.add_metric([level.value], of_sets.get(level.value, 0))
    return verdicts


def _labels(entry: ScoreHistogram) -> tuple[str, ...]:
    return entry.model, entry.model_version, entry.scanner, entry.site, entry.origin, entry.oar


def _score_buckets(entry: ScoreHistogram) -> list[tuple[str, float]]:
    counts = map(float, (*entry.counts, entry.counts[-1]))
    return list(zip((*map(str, BUCKETS), "+Inf"), counts, strict=True))


def _buckets(entry: StageDurations) -> list[tuple[str, float]]:
    """Prometheus counts each bucket with all the ones below it."""
    bounds = ["+Inf" if bound == float("inf") else str(bound) for bound in STAGE_BUCKETS_S]
    return list(zip(bounds, accumulate(map(float, entry.counts)), strict=True))
