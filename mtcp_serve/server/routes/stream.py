"""``WS /stream``: frames of one camera in, the maps of the newest out.

A message is an image file, and a message comes back for it: what ``POST /predict`` would answer to it with
the parameters in the address, or, as text, the error it would answer. A frame that comes while another is
worked on waits; one more takes its place, so a client that sends faster than the server works gets the
newest, not a growing delay. The next response is made when the one before has been taken.

A client that asks for the subprotocol ``mtcp`` is told which frame each response is of: a text message
``{"frame": n}`` comes before it, ``n`` counting all frames from 0, and ``frame`` stands beside ``error``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.requests import ClientDisconnect

from mtcp_serve.errors import (
    ForbiddenOriginError,
    InvalidBodyError,
    InvalidParameterError,
    NotReadyError,
    OverloadedError,
    PayloadTooLargeError,
    RequestError,
)
from mtcp_serve.inference.registry import Models
from mtcp_serve.outputs.formats import FORMATS
from mtcp_serve.server.error_handlers import error_response, note
from mtcp_serve.server.routes.dependencies import (
    Plan,
    PredictQuery,
    get_service,
    given_once,
    read_query,
    write_prediction,
)
from mtcp_serve.server.security.subprotocols import chosen
from mtcp_serve.server.service import Service, Turn

router = APIRouter()

GOING_AWAY, NO_IMAGE, POLICY, TOO_BIG, TRY_AGAIN = 1001, 1003, 1008, 1009, 1013
"""Close codes (RFC 6455): the server stops, a message is text, wrong parameters, a frame is beyond the limit,
too many streams."""
_CODES: tuple[tuple[type[RequestError], int], ...] = (
    (NotReadyError, GOING_AWAY),
    (InvalidBodyError, NO_IMAGE),
    (PayloadTooLargeError, TOO_BIG),
    (OverloadedError, TRY_AGAIN),
    (RequestError, POLICY),
)
_read_query = read_query(PredictQuery)


class Newest:
    """The newest frame that has come, the one before it is dropped; until something ends the stream."""

    def __init__(self) -> None:
        self._come = asyncio.Event()
        self._left = asyncio.Event()
        self._frame = b""
        self._count = 0
        self.number = -1
        """Which of the frames that came, from 0, the last one is that was taken."""
        self.end: Exception | None = None
        """What `get` raises in place of a frame."""

    def put(self, frame: bytes) -> None:
        """Have `get` return ``frame``, and not one that it has not yet returned."""
        self._count += 1
        self._frame = frame
        self._come.set()

    def finish(self, end: Exception) -> None:
        """Have `get` raise ``end``: the frame that is worked on is the last that is answered."""
        self.end = end
        self._come.set()

    def leave(self, end: Exception) -> None:
        """The same, and nobody wants the answer to that one either."""
        self.finish(end)
        self._left.set()

    async def get(self) -> bytes:
        """The next frame; raises `end` where there is none any more."""
        await self._come.wait()
        if self.end is not None:
            raise self.end
        self._come.clear()
        self.number = self._count - 1
        return self._frame

    async def left(self) -> None:
        """Wait until `leave` is called."""
        await self._left.wait()


@router.websocket("/stream")
async def stream(websocket: WebSocket) -> None:
    """Answer the newest frame until the client leaves."""
    if not _same_origin(websocket):
        error = ForbiddenOriginError("pages of this origin may not open a stream")
        await websocket.send_denial_response(error_response(error, websocket.scope))
        return
    await websocket.accept(subprotocol=chosen(websocket.scope))
    try:
        service = await get_service(websocket)
        if (unready := service.unready) is not None:
            raise unready
        await given_once(websocket)
        query = await _read_query(websocket)
        newest = Newest()
        with service.streaming(newest.finish):
            _choose(service.models, query, service.pool)  # what is wrong is told before a frame comes
            await _serve(websocket, service, query, newest)
    except WebSocketDisconnect:
        pass
    except RequestError as error:
        websocket.scope.setdefault("state", {})["error_code"] = error.code
        await _close(websocket, next(code for kind, code in _CODES if isinstance(error, kind)), error.message)


async def _serve(websocket: WebSocket, service: Service, query: PredictQuery, newest: Newest) -> None:
    """Answer frames until one of the two ends it.

    Raises:
        WebSocketDisconnect: the client left.
        ClientDisconnect: it left while a frame of its was worked on.
        RequestError: the server ends it.
    """
    check_key: Callable[[], object] = websocket.scope.get("state", {}).get("check_key", lambda: None)
    numbered = chosen(websocket.scope) is not None
    reading = asyncio.create_task(_read(websocket, newest, service.limits.max_bytes))
    try:
        while True:
            frame = await newest.get()
            check_key()
            try:
                content = await _answer(service, query, frame, newest.left)
            except NotReadyError:
                raise
            except RequestError as error:
                note(error)
                service.metrics.errors.labels(error.code).inc()
                number = {"frame": newest.number} if numbered else {}
                await websocket.send_text(json.dumps({**error.body(), **number}))
            else:
                if numbered:
                    await websocket.send_text(json.dumps({"frame": newest.number}))
                await websocket.send_bytes(content)
    except ClientDisconnect:
        if isinstance(newest.end, RequestError):  # it is still there, and is to be told
            raise newest.end from None
        raise
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):  # as it was told to
            await reading


async def _answer(
    service: Service, query: PredictQuery, frame: bytes, left: Callable[[], Awaitable[None]]
) -> bytes:
    """What ``POST /predict`` would answer; the models are those of now, so that a reload need not wait.

    Raises:
        ClientDisconnect: ``left`` returned.
        RequestError: what ``POST /predict`` would answer.
    """

    async def work(data: bytes, turn: Turn, models: Models) -> bytes:
        choices, writer = _choose(models, query, service.pool)
        (timings,) = turn.timings(1)
        return await write_prediction(service, data, choices, query, writer, timings)

    content, _ = await service.handle(partial(_give, frame), work, left)
    return content


def _choose(models: Models, query: PredictQuery, pool: Executor) -> Plan:
    """The tasks that the format (npz unless named) shows, and what writes it.

    Raises:
        RequestError: there is no such task or model, or `PredictQuery.plan` refuses them.
    """
    if query.distances is not None:
        raise InvalidParameterError("distances are of one image, and a stream has many: use POST /predict")
    form = FORMATS[query.format or "npz"]
    choices, options = query.plan(form, models.select(query.names(), query.model))
    return choices, form(pool, options)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close, with as much of ``reason`` as a close message may hold, unless the client has left meanwhile."""
    with suppress(WebSocketDisconnect):
        await websocket.close(code, reason.encode()[:120].decode(errors="ignore"))


async def _give(frame: bytes) -> bytes:
    return frame


async def _read(websocket: WebSocket, newest: Newest, most: int) -> None:
    """Take messages until the client leaves, or sends what is no frame."""
    end: Exception = WebSocketDisconnect()
    try:
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            frame = message.get("bytes")
            if frame is None:
                end = InvalidBodyError("send image files, as binary messages")
                break
            if len(frame) > most:
                end = PayloadTooLargeError(f"the frame has {len(frame)} bytes, the limit is {most}")
                break
            newest.put(frame)
    finally:
        newest.leave(end)


def _same_origin(websocket: WebSocket) -> bool:
    """Whether no page of another origin asked: browsers let every page open a stream."""
    origin = websocket.headers.get("origin")
    if origin is None:
        return True
    allowed = websocket.app.state.cors_origin
    return origin in allowed or "*" in allowed or origin.partition("://")[2] == websocket.headers.get("host")
