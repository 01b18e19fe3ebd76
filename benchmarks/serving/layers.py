"""The layers that are compared, in turns, so that a slow minute of the machine meets them all alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import httpx
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.serving.loops import Call, Outcome, closed_loop
from mtcp_serve.bundle.manifest import IMAGE_TENSOR

ENGINE = "engine"
ARRAYS = "arrays, model size"
PICTURES = "PNG, image size"
QUERIES = {ARRAYS: "format=npz&size=model", PICTURES: "format=json&size=input"}
"""Query of ``POST /predict`` by layer."""
_ENGINE_THREADS = 4  # each call takes memory of its own; more callers than this wait
_BLOCK = 5  # calls of one layer before it is the next one's turn

Layers = dict[str, Call]


def request(http: httpx.AsyncClient, query: str, image: bytes) -> Call:
    """Sends ``image`` as the raw body of a ``POST /predict``."""

    async def call() -> tuple[int, int]:
        headers = {"Content-Type": "application/octet-stream"}
        response = await http.post(f"/predict?{query}", content=image, headers=headers)
        return response.status_code, len(response.content)

    return call


@asynccontextmanager
async def layers(
    session: ort.InferenceSession, image: NDArray[np.uint8], url: str, data: bytes
) -> AsyncIterator[Layers]:
    """The engine alone, in up to four threads of this process, and the gateway at ``url``, warm."""
    loop = asyncio.get_running_loop()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with ThreadPoolExecutor(_ENGINE_THREADS) as pool:

        async def engine() -> tuple[int, int]:
            maps = await loop.run_in_executor(pool, session.run, None, {IMAGE_TENSOR: image})
            return httpx.codes.OK, sum(array.nbytes for array in maps)

        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
            found = {ENGINE: engine} | {name: request(http, query, data) for name, query in QUERIES.items()}
            for call in found.values():
                await closed_loop(call, 2, at_least=3)
            yield found


async def one_at_a_time(layers: Layers, calls: int) -> dict[str, Outcome]:
    """``calls`` of each layer, one client, a few of each in turn."""
    rounds = max(1, calls // _BLOCK)
    return await _in_turns(layers, rounds, partial(closed_loop, clients=1, at_least=min(_BLOCK, calls)))


async def sweep(
    layers: Layers, counts: Sequence[int], seconds: float, rounds: int
) -> dict[str, dict[int, Outcome]]:
    """A closed loop of each count of clients, for ``seconds`` in each of ``rounds``, by layer and count."""
    found: dict[str, dict[int, Outcome]] = {name: {} for name in layers}
    for count in counts:
        outcomes = await _in_turns(layers, rounds, partial(closed_loop, clients=count, seconds=seconds))
        for name, outcome in outcomes.items():
            found[name][count] = outcome
    return found


async def _in_turns(
    layers: Layers, rounds: int, loop: Callable[[Call], Awaitable[Outcome]]
) -> dict[str, Outcome]:
    parts: dict[str, list[Outcome]] = {name: [] for name in layers}
    for _ in range(rounds):
        for name, call in layers.items():
            parts[name].append(await loop(call))
    return {name: Outcome.merge(each) for name, each in parts.items()}


def capacity(outcomes: dict[int, Outcome]) -> float:
    """The most responses per second that any count of clients got."""
    return max(outcome.rate for outcome in outcomes.values())
