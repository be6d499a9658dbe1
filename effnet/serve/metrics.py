"""Prometheus metrics. Every server has a registry of its own."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST

SECONDS_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Requests by path and status, their duration, batch sizes and queue length."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("effnet_requests", "Requests answered.", ["path", "status"], registry=registry)

        def histogram(name: str, text: str, label: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"effnet_{name}", text, [label], buckets=buckets, registry=registry)

        text = "Seconds from a request's headers to its response."
        self._seconds = histogram("request_seconds", text, "path", SECONDS_BUCKETS)
        self._batch_sizes = histogram("batch_images", "Images per batch.", "model", BATCH_SIZE_BUCKETS)
        self._batch_seconds = histogram("network_seconds", "Seconds per batch.", "model", SECONDS_BUCKETS)
        self._accepted = Gauge("effnet_accepted_images", "Images accepted and not answered yet.", registry=registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; ``path`` is the route's, so that strangers cannot create new ones."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch_observer(self, model: str) -> Callable[[int, float], None]:
        """Return a function of a batch's size and seconds that records it for ``model``."""
        sizes, seconds = self._batch_sizes.labels(model), self._batch_seconds.labels(model)

        def observe_batch(size: int, elapsed: float) -> None:
            sizes.observe(size)
            seconds.observe(elapsed)

        return observe_batch

    def set_accepted_source(self, count: Callable[[], float]) -> None:
        """Set the function that returns the number of accepted, unanswered images."""
        self._accepted.set_function(count)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
