"""OpenTelemetry: FastAPI's span a request, and under it one a stage. Imported only when switched on.

Where spans go, and what the service is called, is read from the standard ``OTEL_*`` variables, such as
``OTEL_EXPORTER_OTLP_ENDPOINT`` and ``OTEL_SERVICE_NAME``.
"""

import time
from collections.abc import MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import get_current_span

from mtcp_serve.inference.timings import Timings
from mtcp_serve.server.middleware import is_probe
from mtcp_serve.server.paths import path_of


class Tracing:
    """Traces of one application; spans go to ``exporter``, by default over OTLP."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        resource = Resource({SERVICE_NAME: "mtcp-serve"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("mtcp_serve")

    @property
    def config(self) -> TelemetryConfig:
        """The argument ``telemetry`` of the application."""

        def exclude(scope: MutableMapping[str, Any]) -> bool:
            return is_probe(path_of(scope))

        return {
            "tracer_provider": self._provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": exclude,
        }

    def image(self, timings: Timings) -> None:
        """Turn the timings of an image into spans of the request that is being answered.

        A gRPC call has no span, and each stage would be a trace of its own: there are none for it.
        """
        if not get_current_span().get_span_context().is_valid:
            return
        epoch = time.time() - time.perf_counter()
        for stage, start, end in timings.spans:
            span = self._tracer.start_span(stage, start_time=round(1e9 * (epoch + start)))
            span.end(round(1e9 * (epoch + end)))

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()
