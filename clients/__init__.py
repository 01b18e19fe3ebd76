"""The clients are `mtcp_serve.clients`; here are examples that run and, for a while, the old names."""

import importlib
import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    """What was imported from here before."""
    home = importlib.import_module("mtcp_serve.clients")
    if name not in home.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"clients.{name} is mtcp_serve.clients.{name}; the old name works for this version",
        FutureWarning,
        stacklevel=2,
    )
    return getattr(home, name)
