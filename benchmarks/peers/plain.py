"""A plain FastAPI server, as one writes it in an afternoon: without limits, queue, negotiation and errors."""

import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import uvicorn
from fastapi import Body, FastAPI, Response

from benchmarks.peers.work import Format, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MEDIA_TYPES = {"npz": "application/x-npz", "json": "application/json"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> "AsyncIterator[None]":
    """Open the graph once."""
    app.state.work = Work.of_environment()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(
    image: Annotated[bytes, Body(media_type="application/octet-stream")], format: Format = "json"
) -> Response:
    """In one of FastAPI's threads."""
    return Response(app.state.work.answer(image, format), media_type=MEDIA_TYPES[format])


@app.get("/ready")
def ready() -> None:
    """The graph is open."""


if __name__ == "__main__":
    listening = socket.socket(fileno=int(os.environ["PEER_SOCKET"]))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])
