"""What Prometheus is told of a server. Each server has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST

SECONDS_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Requests by path and status, how long they take, and how full batches and the queue are."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        here = self._registry
        self._requests = Counter("effnet_requests", "Requests answered.", ["path", "status"], registry=here)
        self._seconds = Histogram(
            "effnet_request_seconds",
            "From a request's head to its answer.",
            ["path"],
            buckets=SECONDS_BUCKETS,
            registry=here,
        )
        self._batches = Histogram(
            "effnet_batch_pictures", "Pictures computed at once.", ["model"], buckets=BATCH_SIZE_BUCKETS, registry=here
        )
        self._network = Histogram(
            "effnet_network_seconds", "A batch through the network.", ["model"], buckets=SECONDS_BUCKETS, registry=here
        )
        self._accepted = Gauge("effnet_accepted_pictures", "Pictures accepted and not answered yet.", registry=here)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """One request was answered; ``path`` is the route's, so that strangers cannot make up new ones."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch_observer(self, model: str) -> Callable[[int, float], None]:
        """What hears of each batch of ``model``: how many pictures, how many seconds."""
        sizes, seconds = self._batches.labels(model), self._network.labels(model)

        def observe_batch(size: int, took: float) -> None:
            sizes.observe(size)
            seconds.observe(took)

        return observe_batch

    def set_accepted_source(self, count: Callable[[], float]) -> None:
        """Where the number of pictures that are accepted and not answered is to be asked."""
        self._accepted.set_function(count)

    def render(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)
