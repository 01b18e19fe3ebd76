"""Serving what is there now instead of what was: by signal, and by itself where Tritons have rolled over."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final, Protocol

from mtcp_serve.engines.base import Engine
from mtcp_serve.errors import BundleError, RequestError, VersionLostError
from mtcp_serve.inference.registry import Models
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.settings import Settings

AGAIN_S: Final = 2.0
"""Seconds from a failed reload by itself to the next."""
_LOOK_S = 0.02  # how often a request looks whether there are other models
_log = logging.getLogger(__name__)


class Reloadable(Protocol):
    """What a `Reloader` needs of `mtcp_serve.server.service.Service`."""

    settings: Settings
    models: Models
    draining: bool

    async def reload(self, load: Callable[[], Sequence[Engine]]) -> None:
        """Serve what ``load`` opens from now on."""


class Reloader:
    """Reloads ``service``, one time after the other, and says in the log how it went."""

    def __init__(self, service: Reloadable) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._recovery: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._fault = ""

    async def reload(self) -> None:
        """Serve what the settings name as it is now; where that cannot be served, what was there stays."""
        async with self._lock:
            if not self._service.draining:
                self._fault = ""
                await self._reload(partial(load_engines, self._service.settings))

    async def recover(self, models: Models, error: VersionLostError) -> None:
        """Return when others than ``models`` are served, with which a request met ``error``.

        However many requests meet it, there is one reload. It takes the versions that Triton has now, and is
        refused where Triton lacks a model that was served. After one that failed, the next comes `AGAIN_S`
        later at the earliest, and the log says why only where that has changed.

        Raises:
            VersionLostError: ``error``, when ``models`` stay.
        """
        while self._service.models is models:
            if self._recovery is None:
                if not self._service.settings.triton or asyncio.get_running_loop().time() < self._not_before:
                    raise error
                self._recovery = asyncio.create_task(self._recover(models))
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Give up what `recover` has begun."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait({self._recovery})

    async def _recover(self, models: Models) -> None:
        try:
            async with self._lock:
                if self._service.models is models:  # unless a signal came before
                    names = [batcher.engine.manifest.name for batcher in models]
                    await self._reload(partial(_load_all, self._service.settings, names))
        finally:
            if self._service.models is models:
                self._not_before = asyncio.get_running_loop().time() + AGAIN_S
            self._recovery = None

    async def _reload(self, load: Callable[[], Sequence[Engine]]) -> None:
        try:
            await self._service.reload(load)
        except Exception as error:
            if str(error) != self._fault:
                known = isinstance(error, BundleError | RequestError)
                _log.error("reload failed, the old bundles stay: %s", error, exc_info=not known)
            self._fault = str(error)
        else:
            self._fault = ""
            manifests = [batcher.engine.manifest for batcher in self._service.models]
            _log.info("reloaded: %s", ", ".join(f"{each.name} {each.version}" for each in manifests))


def _load_all(settings: Settings, names: Collection[str]) -> list[Engine]:
    """`load_engines`, where each of the models ``names`` must be among them.

    Raises:
        BundleError: one is not, or `load_engines` raised it.
    """
    engines = load_engines(settings)
    gone = sorted({*names} - {engine.manifest.name for engine in engines})
    if gone:
        raise BundleError(f"Triton has no {' and no '.join(gone)} any more; SIGHUP serves what it has left")
    return engines
