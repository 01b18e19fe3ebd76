"""``mtcp-serve serve``."""

from pathlib import Path
from typing import Annotated

from mtcp_serve.cli.common import (
    ERRORS,
    NOTHING_DONE,
    BundleOption,
    EngineOption,
    ProviderOption,
    ThreadsOption,
    fail,
    load,
    option,
    read_settings,
)
from mtcp_serve.errors import SettingsError


def serve(
    bundle: BundleOption = None,
    triton: Annotated[list[str] | None, option("triton", "--triton")] = None,
    triton_ca: Annotated[Path | None, option("triton_ca", "--triton-ca")] = None,
    host: Annotated[str | None, option("host", "--host")] = None,
    port: Annotated[int | None, option("port", "--port")] = None,
    root_path: Annotated[str | None, option("root_path", "--root-path")] = None,
    grpc_port: Annotated[int | None, option("grpc_port", "--grpc-port")] = None,
    api_keys_file: Annotated[Path | None, option("api_keys_file", "--api-keys-file")] = None,
    tls_cert: Annotated[Path | None, option("tls_cert", "--tls-cert")] = None,
    tls_key: Annotated[Path | None, option("tls_key", "--tls-key")] = None,
    tls_client_ca: Annotated[Path | None, option("tls_client_ca", "--tls-client-ca")] = None,
    cors_origin: Annotated[list[str] | None, option("cors_origin", "--cors-origin")] = None,
    engine: EngineOption = None,
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
    from mtcp_serve.inference.registry import describe_engine
    from mtcp_serve.server.app import create_app
    from mtcp_serve.server.logging import configure_logging
    from mtcp_serve.server.process import Server

    for loaded in engines:
        ERRORS.print(describe_engine(loaded))
    configure_logging(settings.log_level, settings.log_format)
    try:
        server = Server(create_app(settings, engines), settings)
    except ImportError as error:
        fail(f"{error}; pip install 'mtcp-serve[otel,triton]' brings what is missing", NOTHING_DONE)
    except SettingsError as error:
        fail(str(error), NOTHING_DONE)
    server.run()
