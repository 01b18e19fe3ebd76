"""``mtcp-serve serve``."""

from typing import Annotated

from mtcp_serve.cli.common import (
    ERRORS,
    NOTHING_DONE,
    BundleOption,
    ProviderOption,
    ThreadsOption,
    fail,
    load,
    option,
    read_settings,
)


def serve(
    bundle: BundleOption = None,
    triton: Annotated[list[str] | None, option("triton", "--triton")] = None,
    host: Annotated[str | None, option("host", "--host")] = None,
    port: Annotated[int | None, option("port", "--port")] = None,
    grpc_port: Annotated[int | None, option("grpc_port", "--grpc-port")] = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    micro_batch: Annotated[int | None, option("micro_batch", "--micro-batch")] = None,
    micro_batch_delay_ms: Annotated[
        float | None, option("micro_batch_delay_ms", "--micro-batch-delay")
    ] = None,
    concurrency: Annotated[int | None, option("concurrency", "--concurrency")] = None,
    queue: Annotated[int | None, option("queue", "--queue")] = None,
    deadline_s: Annotated[float | None, option("deadline_s", "--deadline")] = None,
    uploads: Annotated[int | None, option("uploads", "--uploads")] = None,
    upload_s: Annotated[float | None, option("upload_s", "--upload-time")] = None,
    max_bytes: Annotated[int | None, option("max_bytes", "--max-bytes")] = None,
    max_pixels: Annotated[int | None, option("max_pixels", "--max-pixels")] = None,
    max_side: Annotated[int | None, option("max_side", "--max-side")] = None,
    batch_photos: Annotated[int | None, option("batch_photos", "--batch-photos")] = None,
    batch_bytes: Annotated[int | None, option("batch_bytes", "--batch-bytes")] = None,
    traces: Annotated[bool | None, option("traces", "--traces/--no-traces")] = None,
    log_level: Annotated[str | None, option("log_level", "--log-level")] = None,
    log_format: Annotated[str | None, option("log_format", "--log-format")] = None,
) -> None:
    """Serve bundles over HTTP until interrupted. SIGTERM finishes what was accepted, SIGHUP reloads."""
    settings = read_settings(**locals())
    engines = load(settings)
    from mtcp_serve.app import create_app
    from mtcp_serve.logs import configure_logging
    from mtcp_serve.models import describe_engine
    from mtcp_serve.server import Server

    for engine in engines:
        ERRORS.print(describe_engine(engine))
    try:
        app = create_app(settings, engines)
    except ImportError as error:
        fail(f"{error}; pip install 'mtcp-serve[otel,triton]' brings what is missing", NOTHING_DONE)
    configure_logging(settings.log_level, settings.log_format)
    Server(app, settings).run()
