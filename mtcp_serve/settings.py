"""Every setting of the server, in one place: environment variables ``MTCP_*`` and the command line over them.

``MTCP_MAX_BYTES=5000000 mtcp-serve serve --port 9000`` sets two of them.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

BUNDLES = Path(__file__).parent / "bundles"
"""Where the bundles that ship with the package are."""
DEFAULT_BUNDLE = BUNDLES / "mtcp-lite"

PILLOW_MAX_PIXELS = 178_956_970
"""Pillow refuses to open an image of more pixels, whatever this server allows."""

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]


class Settings(BaseSettings):
    """The settings, their types, ranges and defaults; the descriptions are the command line's help."""

    model_config = SettingsConfigDict(env_prefix="MTCP_", frozen=True)

    bundle: Path = Field(default=DEFAULT_BUNDLE, description="Folder of the bundle to serve.")
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one.")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        default="info", description="Least severe log messages to print."
    )

    provider: Provider = Field(
        default="auto",
        description="Where the model runs: cpu, cuda, tensorrt, or auto (CUDA if there is one).",
    )
    threads: int = Field(
        default=0, ge=0, description="CPU threads for one inference; 0 is one a physical core."
    )
    concurrency: int = Field(default=2, ge=1, description="Requests worked on at the same time.")
    queue: int = Field(default=32, ge=0, description="Requests that may wait; one more is answered 429.")
    deadline_s: float = Field(
        default=30.0, gt=0, description="Seconds from complete upload to answer; a later one is answered 504."
    )

    max_bytes: int = Field(default=20 * 2**20, ge=1, description="Largest image file, bytes.")
    max_pixels: int = Field(
        default=2**25,
        ge=1,
        le=PILLOW_MAX_PIXELS,
        description="Largest image, pixels (checked before decoding).",
    )
    max_side: int = Field(
        default=16384, ge=1, description="Longest image side, pixels (checked before decoding)."
    )
