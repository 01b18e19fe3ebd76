"""What ``GET /metrics`` tells Prometheus."""

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from mtcp_serve.inference.timings import Timings

if TYPE_CHECKING:
    from mtcp_serve.server.service import Service

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The figures of one application; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "mtcp_requests", "Answered requests.", ("method", "path", "status"), registry=registry
        )
        self.errors = Counter(
            "mtcp_errors", "Requests and photos of batches that met an error.", ("code",), registry=registry
        )
        self.key_requests = Counter(
            "mtcp_key_requests", "Requests with an API key, by the key's label.", ("key",), registry=registry
        )
        self.request_seconds = Histogram(
            "mtcp_request_seconds",
            "From the head of a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "mtcp_stage_seconds",
            "Time a photo spent in a stage.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "mtcp_micro_batch_photos",
            "Photos given to the model at a time.",
            ("model",),
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.disconnects = Counter(
            "mtcp_client_disconnects", "Clients that hung up before their answer.", registry=registry
        )
        self._queue = Gauge("mtcp_queue_requests", "Requests that wait for a slot.", registry=registry)
        self._running = Gauge("mtcp_running_requests", "Requests being worked on.", registry=registry)
        self._uploads = Gauge("mtcp_uploads", "Request bodies being read.", registry=registry)
        self._answers = Gauge("mtcp_answers", "Answers being sent.", registry=registry)
        self._ready = Gauge("mtcp_ready", "1 while requests are taken.", registry=registry)

    def watch(self, service: "Service") -> None:
        """Read the gauges off ``service`` whenever they are asked for."""
        self._queue.set_function(lambda: service.admission.waiting)
        self._running.set_function(lambda: service.admission.running)
        self._uploads.set_function(lambda: service.uploads.running)
        self._answers.set_function(lambda: service.answers)
        self._ready.set_function(lambda: 0 if service.draining else 1)

    def photo(self, timings: Timings) -> None:
        """Count the stages of a photo that was answered."""
        for stage, ms in timings.ms.items():
            self.stage_seconds.labels(stage).observe(ms / 1000)
