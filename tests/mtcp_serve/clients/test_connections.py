"""Connections of the Triton clients: when they are made, how many, and what is said where nobody answers."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtcp_serve.clients import AsyncTritonClient, TritonClient, UnavailableError
from mtcp_serve.clients._conversation import Conversation
from tests.mtcp_serve.support import HEIGHT, WIDTH, noise

NOISE = noise(HEIGHT, WIDTH)


def test_an_asyncio_client_may_be_made_where_no_event_loop_runs() -> None:
    """In a thread without one too; it belongs to the loop of its first call."""

    async def ask(client: AsyncTritonClient) -> None:
        async with client:
            await client.manifest()

    with ThreadPoolExecutor(1) as thread:
        made_there = thread.submit(AsyncTritonClient, "127.0.0.1:1", "tiny", deadline_s=5).result()
    for client in (made_there, AsyncTritonClient("127.0.0.1:1", "tiny", deadline_s=5)):
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
            asyncio.run(ask(client))
    with pytest.raises(ValueError, match="TLS"):  # what is wrong is told when it is made
        AsyncTritonClient("127.0.0.1:1", authorities="ca.pem")


def test_threads_whose_first_calls_meet_share_one_connection() -> None:
    """As those of ``stream`` do; a second one would never be closed."""
    made: list[object] = []
    before, all_there = threading.Event(), threading.Barrier(5)

    def connect() -> object:
        before.wait(10)
        made.append(object())
        return made[-1]

    talk = Conversation(connect, "nowhere", None, None, 1.0, shared_memory=False)

    def ask() -> object:
        all_there.wait(10)
        return talk.client

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        all_there.wait(10)
        time.sleep(0.05)  # for those that would not wait for the first to begin a second
        before.set()
        assert {future.result() for future in asked} == {*made}
    assert len(made) == 1


def test_nobody_there() -> None:
    with (
        TritonClient("127.0.0.1:1", deadline_s=5) as client,
        pytest.raises(UnavailableError, match=r"127\.0\.0\.1"),
    ):
        client.predict(NOISE)

    async def predict() -> None:
        async with AsyncTritonClient("127.0.0.1:1", deadline_s=5) as client:
            await client.predict(NOISE)

    with pytest.raises(UnavailableError):
        asyncio.run(predict())
