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
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from mtcp_serve.errors import (
    DrainingError,
    InvalidParameterError,
    NotReadyError,
    OverloadedError,
    RequestError,
)
from mtcp_serve.inference.registry import Models
from mtcp_serve.outputs.formats import FORMATS
from mtcp_serve.server.error_handlers import note
from mtcp_serve.server.routes.dependencies import Plan, PredictQuery, write_prediction
from mtcp_serve.server.security.subprotocols import chosen
from mtcp_serve.server.service import Service, Turn
from mtcp_serve.utils.faults import faults_of

router = APIRouter()

GOING_AWAY, NO_IMAGE, POLICY, TOO_BIG, TRY_AGAIN = 1001, 1003, 1008, 1009, 1013
"""Close codes (RFC 6455): the server stops, a message is text, wrong parameters, a frame is beyond the limit,
too many streams."""


class Newest:
    """The newest frame that has come; the one before it is dropped."""

    def __init__(self) -> None:
        self._come = asyncio.Event()
        self._frame: bytes | None = None
        self._count = 0
        self.number = -1
        """Which of the frames that came, from 0, the last one is that was taken."""
        self.closed = False

    def put(self, frame: bytes | None) -> None:
        """``None`` is the end."""
        self.closed = self.closed or frame is None
        self._count += 1
        self._frame = frame
        self._come.set()

    async def get(self) -> bytes | None:
        """The next frame; ``None`` at the end."""
        await self._come.wait()
        self._come.clear()
        frame, self._frame = self._frame, None
        self.number = self._count - 1
        return None if self.closed else frame


@router.websocket("/stream")
async def stream(websocket: WebSocket) -> None:
    """Answer the newest frame until the client leaves."""
    if not _same_origin(websocket):
        await websocket.close(POLICY)  # before it is accepted: the answer is 403
        return
    await websocket.accept(subprotocol=chosen(websocket.scope))
    try:
        service: Service | None = websocket.app.state.service
        if service is None or service.unready is not None:
            raise NotReadyError("the server is starting or shutting down")
        query = PredictQuery.model_validate(dict(websocket.query_params))
        with service.streaming():
            _choose(service.models, query, service.pool)  # what is wrong is told before a frame comes
            await _serve(websocket, service, query)
    except WebSocketDisconnect:
        pass
    except ValidationError as error:
        await websocket.close(POLICY, _reason(faults_of(error.errors())))
    except (DrainingError, NotReadyError) as error:
        await websocket.close(GOING_AWAY, _reason(error.message))
    except OverloadedError as error:
        await websocket.close(TRY_AGAIN, _reason(error.message))
    except RequestError as error:
        await websocket.close(POLICY, _reason(error.message))


async def _serve(websocket: WebSocket, service: Service, query: PredictQuery) -> None:
    newest = Newest()
    numbered = chosen(websocket.scope) is not None
    reading = asyncio.create_task(_read(websocket, newest, service.limits.max_bytes))
    try:
        while (frame := await newest.get()) is not None:
            try:
                content = await _answer(service, query, frame)
            except (DrainingError, NotReadyError):
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
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):  # as it was told to
            await reading


async def _answer(service: Service, query: PredictQuery, frame: bytes) -> bytes:
    """What ``POST /predict`` would answer; the models are those of now, so that a reload need not wait."""

    async def work(data: bytes, turn: Turn, models: Models) -> bytes:
        choices, writer = _choose(models, query, service.pool)
        (timings,) = turn.timings(1)
        return await write_prediction(service, data, choices, query, writer, timings)

    content, _ = await service.handle(partial(_give, frame), work)
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


def _reason(text: str) -> str:
    """``text``, as long as a close message may be."""
    return text.encode()[:120].decode(errors="ignore")


async def _give(frame: bytes) -> bytes:
    return frame


async def _read(websocket: WebSocket, newest: Newest, most: int) -> None:
    """Take messages until the client leaves."""
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            frame = message.get("bytes")
            if frame is None:
                await websocket.close(NO_IMAGE, "send image files, as binary messages")
                break
            if len(frame) > most:
                await websocket.close(TOO_BIG, f"the frame has {len(frame)} bytes, the limit is {most}")
                break
            newest.put(frame)
    finally:
        newest.put(None)


def _same_origin(websocket: WebSocket) -> bool:
    """Whether no page of another origin asked: browsers let every page open a stream."""
    origin = websocket.headers.get("origin")
    if origin is None:
        return True
    allowed = websocket.app.state.cors_origin
    return origin in allowed or "*" in allowed or origin.partition("://")[2] == websocket.headers.get("host")
