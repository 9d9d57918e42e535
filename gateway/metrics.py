"""The gateway's own numbers for Prometheus: counts and ages.

They say nothing of a patient or of a series.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.store import Store

REGISTRY: Final = CollectorRegistry()

RECEIVED: Final = Counter(
    "oarlock_gateway_instances", "Files that were sent here, by what was answered", ["outcome"], registry=REGISTRY
)
REFUSED_ASSOCIATIONS: Final = Counter(
    "oarlock_gateway_associations_refused", "Associations that were turned away", ["title"], registry=REGISTRY
)
SERVICE_CALLS: Final = Counter(
    "oarlock_gateway_service_calls", "Calls of the service, by outcome", ["outcome"], registry=REGISTRY
)
SENT: Final = Counter(
    "oarlock_gateway_sends", "Attempts at a delivery, by place and outcome", ["place", "outcome"], registry=REGISTRY
)


class _Standing(Collector):
    """How many series, posts and deliveries stand where, asked of the table when somebody looks."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock

    def collect(self) -> list[GaugeMetricFamily]:
        counts = self._store.counts()
        series = GaugeMetricFamily("oarlock_gateway_series_receiving", "Series that are coming in", counts["series.receiving"])
        found = [series]
        for table, states in (
            ("posts", ("waiting", "posted", "succeeded", "failed", "refused", "superseded")),
            ("deliveries", ("waiting", "delivered", "dead", "dropped")),
        ):
            family = GaugeMetricFamily(f"oarlock_gateway_{table}", f"How many {table} stand in each state", labels=["state"])
            for state in states:
                family.add_metric([state], counts.get(f"{table}.{state}", 0))
            found.append(family)
        waiting = [one.next_at for one in self._store.posts(states=("waiting",))]
        late = max(0.0, self._clock() - min(waiting)) if waiting else 0.0
        found.append(GaugeMetricFamily("oarlock_gateway_post_late_seconds", "By how much the oldest post is late", late))
        return found


def serve(store: Store, host: str, port: int, clock: Callable[[], float]) -> tuple[int, Callable[[], None]]:
    """Answer Prometheus at an address; its port, and what ends it.

    :raises OSError: the port cannot be listened on.
    """
    standing = _Standing(store, clock)
    REGISTRY.register(standing)
    server, thread = start_http_server(port, host, registry=REGISTRY)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()
        REGISTRY.unregister(standing)

    return server.server_port, stop
