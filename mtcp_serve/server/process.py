"""The server process: uvicorn, with an orderly end and a reload by signal.

``SIGTERM`` and ``SIGINT``: the server answers 503 ``draining`` to what is new, finishes what it accepted,
and ends. With ``SIGTERM`` it stays at work for ``shutdown_delay_s`` before, so that balancers have time to
learn of it: it says that it is not ready, and ends each connection with its next response. What is not
finished ``drain_s`` later is cut off. A second signal ends the process at once.

``SIGHUP``: API keys and certificate are read again, and the bundles are opened again from their folders and
take over when they are warm; when that fails the log says why, and what was there stays.
"""

import asyncio
import contextvars
import logging
import os
import signal
import socket
import threading
from functools import partial
from importlib.util import find_spec
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from mtcp_serve.errors import SettingsError
from mtcp_serve.server.http_protocol import BoundedHttp, HttpLimits
from mtcp_serve.server.security.tls import Tls
from mtcp_serve.server.service import CLOSING_S, Service
from mtcp_serve.server.settings import Settings

_log = logging.getLogger(__name__)


def _streams(settings: Settings) -> Any:
    """What speaks WebSocket: nothing without the extra ``stream``."""
    if find_spec("wsproto") is None:
        return "none"
    from mtcp_serve.server.websocket_protocol import BoundedStream

    return partial(BoundedStream, send_s=settings.send_s)


class Server(uvicorn.Server):
    """Serves ``app`` as ``settings`` say.

    Raises:
        SettingsError: the certificate or its key cannot be used.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        tls = Tls.of(settings)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                root_path=settings.root_path,
                log_config=None,
                access_log=False,
                server_header=False,
                http=partial(BoundedHttp, limits=HttpLimits.of(settings)),  # type: ignore[arg-type]
                ws=_streams(settings),
                ws_max_size=settings.max_bytes,
                ws_per_message_deflate=False,  # images are compressed already
                h11_max_incomplete_event_size=settings.max_header_bytes,
                timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # goes to call_later
                timeout_graceful_shutdown=CLOSING_S,
                **({} if tls is None else tls.for_uvicorn()),
            )
        )
        self._app = app
        self._settings = settings
        self._signalled = False
        self._ending: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        self._watchdog: threading.Timer | None = None

    @property
    def _service(self) -> Service | None:
        service: Service | None = self._app.state.service
        return service

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until it ends, however it does; nothing then ends the process of whoever called this."""
        try:
            super().run(sockets)
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take ``SIGHUP`` as well, where there is such a signal, before anybody is told that it runs."""
        self._loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain first; what uvicorn does on a signal comes after that. A second signal ends the process.

        A signal comes in the midst of whatever runs, perhaps of a request, whose id is not that of what is
        logged of the end.
        """
        contextvars.Context().run(self._on_signal, sig, frame)

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        if not self.started:
            super().handle_exit(sig, frame)
        elif self._signalled:
            _log.warning("a second signal: what is not done is cut off")
            _end_now(sig)
        else:
            self._signalled = True
            self._loop.call_soon_threadsafe(self._begin_end, sig, frame)

    def _begin_end(self, sig: int, frame: FrameType | None) -> None:
        self._ending = asyncio.create_task(self._end(sig, frame))

    async def _end(self, sig: int, frame: FrameType | None) -> None:
        settings = self._settings
        delay = settings.shutdown_delay_s if sig == signal.SIGTERM else 0.0
        self._end_within(delay + settings.drain_s + 3 * CLOSING_S, sig)
        if self._service is not None:
            if delay:
                _log.info("shutting down in %g s: not ready, and still at work", delay)
                self._service.leaving = True
                await asyncio.sleep(delay)
                self._close_idle()
                await self._service.leave()
            _log.info("draining: new requests are refused, accepted ones are finished")
            try:
                async with asyncio.timeout(settings.drain_s):
                    await self._service.drain()
            except TimeoutError:
                _log.error("draining took more than %g s: what is not done is cut off", settings.drain_s)
                _end_now(sig)
        super().handle_exit(sig, frame)

    def _close_idle(self) -> None:
        """Close the connections that nothing is under way on: the next request there would be refused."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedHttp):
                connection.close_if_idle()

    def _end_within(self, seconds: float, sig: int) -> None:
        """End the process even if its event loop, or a thread that nobody can stop, does not let it."""

        def end() -> None:
            _log.error("shutting down took more than %g s: what is not done is cut off", seconds)
            _end_now(sig)

        self._watchdog = threading.Timer(seconds, end)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _on_hangup(self) -> None:
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        service = self._service
        if service is None or service.draining:
            return
        self._reload_keys()
        self._reload_certificate(service)
        await service.reloader.reload()

    def _reload_certificate(self, service: Service) -> None:
        try:
            tls = Tls.of(self._settings)
        except SettingsError as error:
            _log.error("the old certificate stays: %s", error)
            return
        if tls is not None:
            assert self.config.ssl is not None
            tls.renew(self.config.ssl)
            service.tls = tls

    def _reload_keys(self) -> None:
        try:
            self._app.state.keys.reload()
        except SettingsError as error:
            _log.error("the old API keys stay: %s", error)


def _end_now(sig: int) -> None:
    """End the process as ``sig`` does where nobody handles it, without waiting for threads."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(sig, signal.SIG_DFL)
        os.kill(os.getpid(), sig)
    os._exit(128 + sig)
