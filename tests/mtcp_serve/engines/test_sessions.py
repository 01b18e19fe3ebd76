"""A call that is alone has the session of all threads; calls that meet run beside each other in another."""

import asyncio
import logging
import math
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MODEL_FILE
from mtcp_serve.engines import onnxruntime, openvino
from mtcp_serve.engines.base import Engine, EngineOptions
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.engines.onnxruntime import OnnxEngine
from mtcp_serve.engines.sessions import LULL_S, Sessions, calls_together
from mtcp_serve.errors import BundleError
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, make_bundle, noise

TWO_THREADS = EngineOptions("cpu", threads=2)
STUCK = np.ascontiguousarray(np.broadcast_to(np.array([0, 255, 0], np.uint8), (1, HEIGHT, WIDTH, 3)))
"""The network of the tests never ends with this image."""


class Spy:
    """A session of ONNX Runtime of so many threads, that says when it is run."""

    def __init__(self, session: Any, threads: int, runs: list[int]) -> None:
        self.session, self.threads, self.runs = session, threads, runs

    def run(self, *arguments: Any) -> Any:
        self.runs.append(self.threads)
        return self.session.run(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of the session of each run, in order."""
    found: list[int] = []
    real = onnxruntime.open_session
    monkeypatch.setattr(
        onnxruntime,
        "open_session",
        lambda model, device, threads, **more: Spy(real(model, device, threads, **more), threads, found),
    )
    return found


async def opened(engine: Engine) -> None:
    """When nothing is being opened any more."""
    assert isinstance(engine, OnnxEngine | openvino.OpenVinoEngine)
    await engine.sessions.opened()


async def saliency(engine: Engine) -> None:
    image = noise(HEIGHT, WIDTH)[None]
    (found,) = await engine.infer(image, TASKS[3:4])
    assert np.allclose(found, image[..., 0] / 255, atol=0.005)


@contextmanager
def endless(engine: Engine) -> Iterator[None]:
    """A call that runs as long as the block, and longer."""
    call = asyncio.create_task(engine.infer(STUCK, TASKS))
    try:
        yield
    finally:
        call.cancel()


async def meet(engine: Engine, runs: list[int]) -> None:
    """Two calls in turn while another runs, the second when all sessions are open."""
    with endless(engine):
        while not runs:
            await asyncio.sleep(0.001)
        await saliency(engine)
        await opened(engine)
        await saliency(engine)


def test_calls_that_meet_run_at_the_same_time_on_a_thread_each(bundle: Path, runs: list[int]) -> None:
    engine = load_engine(Bundle.open(bundle), "onnxruntime", TWO_THREADS)
    assert engine.parallel == 2

    async def scenario() -> None:
        await saliency(engine)
        assert runs == [2]
        with endless(engine):
            while runs != [2, 2]:
                await asyncio.sleep(0.001)
            await saliency(engine)  # answered while the other runs; nobody waits for the new session
            await opened(engine)
            assert set(runs) == {2}
            await saliency(engine)
            await saliency(engine)
            assert runs[3:] == [1, 1]

    asyncio.run(scenario())
    assert isinstance(engine, OnnxEngine)
    engine.sessions.clock = lambda: math.inf  # long after
    asyncio.run(saliency(engine))
    assert runs[3:] == [1, 1, 2]  # alone again


@pytest.mark.parametrize(
    "options", [EngineOptions("cpu", threads=1), EngineOptions("cpu", threads=2, streams=1)]
)
def test_one_thread_and_one_stream_stay_one(bundle: Path, runs: list[int], options: EngineOptions) -> None:
    engine = load_engine(Bundle.open(bundle), "onnxruntime", options)
    assert engine.parallel == 1
    asyncio.run(meet(engine, runs))
    assert set(runs) == {options.threads}


def test_chosen_streams_have_one_session(bundle: Path, runs: list[int]) -> None:
    engine = load_engine(Bundle.open(bundle), "onnxruntime", EngineOptions("cpu", threads=3, streams=2))
    assert engine.parallel == 2
    asyncio.run(meet(engine, runs))
    assert runs == [3, 3, 3]


def test_files_that_were_replaced_are_not_opened(
    tmp_path: Path, runs: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """An operator puts a new graph there, and has not sent the signal yet: two models would answer."""
    engine = load_engine(Bundle.open(make_bundle(tmp_path)), "onnxruntime", TWO_THREADS)
    (tmp_path / MODEL_FILE).write_bytes(b"another graph")

    async def scenario() -> None:
        with endless(engine):
            while not runs:
                await asyncio.sleep(0.001)
            for _ in range(2):
                await saliency(engine)
                await opened(engine)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert runs == [2, 2, 2]
    assert caplog.text.count("share one session") == 1
    assert MODEL_FILE in caplog.text


def test_openvino_compiles_for_two_when_two_come(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled: list[Any] = []
    real = openvino.compile_graph

    def spy(*arguments: Any) -> Any:
        compiled.append(real(*arguments))
        return compiled[-1]

    monkeypatch.setattr(openvino, "compile_graph", spy)
    options = EngineOptions("cpu", threads=2, precision="fp32")
    engine = load_engine(Bundle.open(bundle), "openvino", options)
    assert engine.parallel == 2
    assert len(compiled) == 1

    async def scenario() -> None:
        await asyncio.gather(*(saliency(engine) for _ in range(3)))
        await opened(engine)
        await asyncio.gather(*(saliency(engine) for _ in range(3)))

    asyncio.run(scenario())
    found = [
        (model.get_property("NUM_STREAMS"), model.get_property("INFERENCE_NUM_THREADS")) for model in compiled
    ]
    assert found == [(1, 2), (2, 2)]


def test_which_session_a_call_gets() -> None:
    now = 0.0
    sessions = Sessions("alone", lambda: "shared", clock=lambda: now)

    def one() -> str:
        with sessions.borrow() as found:
            return found

    async def scenario() -> None:
        nonlocal now
        assert [one(), one()] == ["alone", "alone"]
        with sessions.borrow() as first, sessions.borrow() as second:
            assert (first, second) == ("alone", "alone")
            await sessions.opened()
            assert one() == "shared"
        now = 10.0
        with sessions.borrow() as first:
            assert first == "alone"
            assert one() == "shared"
        now = 10.0 + LULL_S / 2  # its company encodes
        assert [one(), one()] == ["shared", "shared"]
        now = 10.0 + LULL_S  # the calls since then met nobody
        assert one() == "alone"

    asyncio.run(scenario())


def test_what_cannot_be_opened_is_tried_once() -> None:
    tried = []

    def fail() -> str:
        tried.append(1)
        raise BundleError("no")

    sessions = Sessions("alone", fail)

    async def scenario() -> None:
        with sessions.borrow(), sessions.borrow():
            await sessions.opened()
            with sessions.borrow() as third:
                assert third == "alone"
        await sessions.opened()

    asyncio.run(scenario())
    assert tried == [1]


def test_closing_waits_for_what_is_being_opened_and_lets_go_of_both() -> None:
    class Session:
        pass

    go = threading.Event()
    alone, shared = Session(), Session()
    gone = [weakref.ref(alone), weakref.ref(shared)]

    def wait(held: list[Session]) -> Session:
        assert go.wait(60)
        return held.pop()

    sessions = Sessions(alone, partial(wait, [shared]))
    del alone, shared

    async def scenario() -> None:
        with sessions.borrow(), sessions.borrow():
            pass
        closing = asyncio.create_task(sessions.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go.set()
        await closing
        with pytest.raises(RuntimeError, match="closed"), sessions.borrow():
            pass

    asyncio.run(scenario())
    assert [each() for each in gone] == [None, None]


def test_as_many_calls_as_there_are_cores_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert [calls_together(threads, 0) for threads in (0, 1, 2, 8)] == [1, 1, 2, 2]
    assert calls_together(0, 5) == 5
