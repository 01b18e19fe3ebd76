"""What ``GET /metrics`` tells Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from mtcp_serve.inference.timings import Timings

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one application; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "mtcp_requests",
            "Answered requests, ended streams.",
            ("method", "path", "status"),
            registry=registry,
        )
        self.errors = Counter(
            "mtcp_errors", "Requests and images of batches that met an error.", ("code",), registry=registry
        )
        self.key_requests = Counter(
            "mtcp_key_requests", "Requests with an API key, by the key's label.", ("key",), registry=registry
        )
        self.request_seconds = Histogram(
            "mtcp_request_seconds",
            "From the head of a request to the end of its response.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "mtcp_stage_seconds",
            "Time an image spent in a stage.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_sizes = [
            Histogram(
                name,
                text,
                ("model",),
                buckets=(1, 2, 4, 8, 16, 32, 64),
                registry=registry,
            )
            for name, text in (
                ("mtcp_batch_images", "Images given to the model at a time."),
                ("mtcp_micro_batch_photos", "Old name of mtcp_batch_images; goes with the next version."),
            )
        ]
        self.disconnects = Counter(
            "mtcp_client_disconnects", "Clients that disconnected before their response.", registry=registry
        )
        self._gauges = {
            "queue": Gauge("mtcp_queue_requests", "Requests that wait for a slot.", registry=registry),
            "running": Gauge("mtcp_running_requests", "Requests being worked on.", registry=registry),
            "overdue": Gauge(
                "mtcp_overdue_requests", "Requests past their deadline that hold a slot.", registry=registry
            ),
            "uploads": Gauge("mtcp_uploads", "Request bodies being read.", registry=registry),
            "responses": Gauge("mtcp_responses", "Responses being sent.", registry=registry),
            "streams": Gauge("mtcp_streams", "Streams that are open (WS /stream).", registry=registry),
            "ready": Gauge("mtcp_ready", "1 while requests are taken.", registry=registry),
        }
        self._old_responses = Gauge(
            "mtcp_answers", "Old name of mtcp_responses; goes with the next version.", registry=registry
        )

    def watch(self, **gauges: Callable[[], float]) -> None:
        """Read the gauge of each name off its function whenever it is asked for."""
        for name, read in gauges.items():
            self._gauges[name].set_function(read)
        self._old_responses.set_function(gauges["responses"])

    def batch(self, model: str, images: int) -> None:
        """Count images given to ``model`` at a time."""
        for histogram in self._batch_sizes:
            histogram.labels(model).observe(images)

    def image(self, timings: Timings) -> None:
        """Count the stages of an image that was answered."""
        for stage, ms in timings.ms.items():
            self.stage_seconds.labels(stage).observe(ms / 1000)
