"""Every setting of the server, in one place: environment variables ``MTCP_*`` and the command line over them.

``MTCP_MAX_BYTES=5000000 mtcp-serve serve --port 9000`` sets two of them.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.engines.base import EngineOptions, Precision, Provider
from mtcp_serve.engines.loading import ENGINES
from mtcp_serve.inference.images import PILLOW_MAX_PIXELS, ImageLimits
from mtcp_serve.server.renamed import OldVariables, renamed

_ORIGIN = re.compile(r"https?://[^/?#@\s]+")
_PATH = re.compile(r"(/[^/?#\s]+)*")
_ENDPOINT = re.compile(r"(grpcs://)?(\[[^\]\s]+\]|[^\s:/\[\]]+):\d{1,5}")
Port = Annotated[int, Field(ge=0, le=65535)]
FinitePositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteNonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The settings, their types, ranges and defaults; the descriptions are the command line's help."""

    model_config = SettingsConfigDict(env_prefix="MTCP_", frozen=True)

    bundle: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(DEFAULT_BUNDLE,),
        min_length=1,
        description=f"Folder of the bundle to serve; several, of which the first that has a task answers it, "
        f"by giving the option again, or separated by '{os.pathsep}' in the environment.",
    )
    triton: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="HOST:PORT of the gRPC of a Triton server to run the models in, instead of bundles "
        "(grpcs://HOST:PORT with TLS); several by giving the option again, or separated by ',' in the "
        "environment.",
    )
    triton_ca: Path | None = Field(
        default=None,
        description="PEM file of the authorities to trust at grpcs://; by default those that gRPC brings.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: Port = Field(default=8000, description="TCP port to listen on; 0 picks a free one.")
    root_path: str = Field(
        default="",
        description="Path below which a proxy shows this server, such as /maps; the proxy takes it off.",
    )
    grpc_port: Port = Field(
        default=0,
        description="TCP port for the Open Inference Protocol over gRPC; 0 is none. Needs the extra triton.",
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        default="info",
        description="Least severe log messages to print: critical, error, warning, info or debug.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="text: log lines for people; json: one object per line."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys, one per line, each with a label if wanted ('name: KEY'); '#' starts a "
        "comment. With keys here or in MTCP_API_KEYS (separated by ','), requests need one.",
    )
    api_keys: SecretStr | None = Field(
        default=None, description="API keys, separated by ','. In the environment only."
    )
    tls_cert: Path | None = Field(
        default=None, description="PEM file of the certificate (chain) to serve HTTPS and gRPC with."
    )
    tls_key: Path | None = Field(
        default=None,
        description="PEM file of its private key; the password of an encrypted one is MTCP_TLS_KEY_PASSWORD.",
    )
    tls_key_password: SecretStr | None = Field(
        default=None, description="Password of the private key. In the environment only."
    )
    tls_client_ca: Path | None = Field(
        default=None, description="PEM file of authorities; clients must have a certificate of one of them."
    )
    cors_origin: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origin whose pages may call this server, such as https://example.org; several by giving "
        "the option again, or separated by ',' in the environment; '*' is every page.",
    )

    traces: bool = Field(
        default=False,
        description="Send OpenTelemetry traces to where the OTEL_* variables say; needs the extra otel.",
    )

    engine: str = Field(
        default="auto",
        description=f"What runs the model in this process: {', '.join(ENGINES)}, or auto (the first).",
    )
    provider: Provider = Field(
        default="auto",
        description="Where the model runs: cpu, cuda, tensorrt, or auto (CUDA if there is one).",
    )
    intra_op_threads: NonNegativeInt = Field(
        default=0, description="CPU threads for one inference; 0 is one per physical core."
    )
    precision: Precision = Field(
        default="auto",
        description="What the engine openvino computes in: fp32, bf16, or auto (bf16 where the processor has "
        "it). The others compute what the graph says.",
    )
    streams: NonNegativeInt = Field(
        default=0,
        description="Inferences at the same time in an engine on the CPU: more gain throughput and make each "
        "slower; 0 is one with all threads while it is alone, and two that share them when more come.",
    )
    max_batch_size: PositiveInt = Field(
        default=1, description="Most images the model is given at a time; memory grows with it."
    )
    max_queue_delay_ms: FiniteNonNegative = Field(
        default=0.0,
        description="Milliseconds that an image waits for others to share its batch.",
    )
    concurrency: PositiveInt = Field(default=2, description="Requests worked on at the same time.")
    queue_size: NonNegativeInt = Field(
        default=32, description="Requests that may wait; one more is answered 429."
    )
    deadline_s: FinitePositive = Field(
        default=30.0,
        description="Seconds from complete upload to response; a later one is answered 504.",
    )
    max_concurrent_uploads: PositiveInt = Field(
        default=64, description="Request bodies read at the same time; one more is answered 429."
    )
    upload_s: FinitePositive = Field(
        default=30.0,
        description="Seconds that a request body may take; a slower one is answered 408.",
    )

    shutdown_delay_s: FiniteNonNegative = Field(
        default=0.0,
        description="Seconds for which SIGTERM leaves the server at work (not ready), until balancers know.",
    )
    drain_s: FiniteNonNegative = Field(
        default=65.0,
        description="Seconds after that for what was accepted to be finished; the rest is cut off.",
    )

    max_bytes: PositiveInt = Field(default=ImageLimits.max_bytes, description="Largest image file, bytes.")
    max_pixels: PositiveInt = Field(
        default=ImageLimits.max_pixels,
        le=PILLOW_MAX_PIXELS,
        description="Largest image, pixels (checked before decoding).",
    )
    max_side: PositiveInt = Field(
        default=ImageLimits.max_side,
        description="Longest image side, pixels (checked before decoding).",
    )
    decode_s: FinitePositive = Field(
        default=ImageLimits.max_seconds,
        description="Seconds that decoding an AVIF or HEIC may take; a slower one is ended and answered 413.",
    )
    max_batch_images: PositiveInt = Field(
        default=16, description="Most images in one request of /predict/batch or /v2."
    )
    max_batch_bytes: PositiveInt = Field(
        default=64 * 2**20, description="Largest body of a request of /predict/batch or /v2, bytes."
    )
    batch_answer: bool = Field(
        default=False,
        description="Call `response` of /predict/batch `answer`, as before; goes with the next version.",
    )
    max_form_fields: NonNegativeInt = Field(
        default=64, description="Most fields beside the images in a form; one more is answered 400."
    )

    max_header_bytes: int = Field(
        default=32 * 2**10,
        ge=2**10,
        description="Longest head of an HTTP request, bytes; a longer one is answered 400.",
    )
    header_s: FinitePositive = Field(
        default=10.0,
        description="Seconds that the head of an HTTP request may take, and what comes after an early "
        "response; then the connection is closed.",
    )
    keep_alive_s: FinitePositive = Field(
        default=75.0,
        description="Seconds that a connection may be idle between two requests; longer than the clients and "
        "proxies keep theirs, or some of their requests meet a connection that is just being closed.",
    )
    max_discarded_bytes: NonNegativeInt = Field(
        default=64 * 2**20,
        description="Bytes of a body that are dropped after an early response; then the connection is cut.",
    )
    send_s: FinitePositive = Field(
        default=30.0,
        description="Seconds that a client may take nothing of its response; then the connection is cut.",
    )
    grpc_keepalive_s: FinitePositive = Field(
        default=30.0,
        description="Seconds between pings to a gRPC client, whose calls hold places and memory.",
    )
    grpc_keepalive_timeout_s: FinitePositive = Field(
        default=10.0,
        description="Seconds that a gRPC client may take to answer a ping; then the connection is cut.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments go before the environment, and that before its variables of old names."""
        return init_settings, env_settings, OldVariables(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: dict[str, Any]) -> dict[str, Any]:
        return renamed(given)

    @property
    def image_limits(self) -> ImageLimits:
        """The largest image that is decoded."""
        return ImageLimits(self.max_bytes, self.max_pixels, self.max_side, self.decode_s)

    @property
    def engine_options(self) -> EngineOptions:
        """How engines in this process run."""
        return EngineOptions(self.provider, self.intra_op_threads, self.precision, self.streams)

    @field_validator("triton", "cors_origin", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """The list of the environment variable."""
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Browsers compare origins as text: one with a path would match nothing."""
        for origin in value:
            if origin == "*" and len(value) > 1:
                raise ValueError("'*' is every origin, and stands alone")
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin; write it like https://example.org or '*'")
        return value

    @field_validator("root_path")
    @classmethod
    def _path(cls, value: str) -> str:
        """Paths of requests are put behind it."""
        if not _PATH.fullmatch(value):
            raise ValueError(f"{value!r} is not such a path; write it like /maps, without a slash at the end")
        return value

    @field_validator("triton")
    @classmethod
    def _endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """gRPC would take a port of its own where none is given, and any scheme for a name."""
        for endpoint in value:
            if not _ENDPOINT.fullmatch(endpoint):
                raise ValueError(
                    f"{endpoint!r} is not HOST:PORT; write it like 127.0.0.1:8001 or grpcs://HOST:8001"
                )
        return value

    @model_validator(mode="after")
    def _models(self) -> Self:
        """What runs in Triton is not in a folder here."""
        if self.triton and "bundle" in self.model_fields_set:
            raise ValueError("bundle and triton are both given; models run here or in Triton, so give one")
        if self.triton_ca is not None and not any(each.startswith("grpcs://") for each in self.triton):
            raise ValueError("triton_ca is for TLS: give triton as grpcs://HOST:PORT")
        return self

    @model_validator(mode="after")
    def _ports(self) -> Self:
        """HTTP and gRPC are two servers."""
        if self.port and self.port == self.grpc_port:
            raise ValueError("port and grpc_port are the same; give two")
        return self

    @model_validator(mode="after")
    def _pair(self) -> Self:
        """A certificate is of no use without its key, nor the rest of TLS without both."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        return self

    @field_validator("bundle", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """One folder, or the list of the environment variable."""
        if isinstance(value, str):
            return [part for part in value.split(os.pathsep) if part]
        return (value,) if isinstance(value, Path) else value
