"""Micro-batches: who shares one, when it starts, and what leaves it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest, TaskSpec
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.onnxruntime import OnnxEngine
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.timings import Timings
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, noise

SEMSEG, DEPTH, *_ = TASKS


class GatedEngine:
    """Its maps are the first pixel of each image times the place of the task; it waits to be let go."""

    device = "cpu"

    def __init__(self, parallel: int = 1) -> None:
        self.parallel = parallel
        self.manifest: Manifest = None  # type: ignore[assignment]
        self.go = asyncio.Event()
        self.batches: list[list[int]] = []
        self.tasks: list[list[str]] = []
        self.running = self.most = self.stopped = 0
        self.error: Exception | None = None
        self.closed_after: int | None = None

    async def close(self) -> None:
        self.closed_after = len(self.batches)

    async def infer(self, images: Any, tasks: Sequence[TaskSpec]) -> list[Any]:
        self.batches.append([int(value) for value in images[:, 0, 0, 0]])
        self.tasks.append([task.name for task in tasks])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return [images[:, :, :, 0].astype(np.float32) * TASKS.index(task) for task in tasks]


def image(value: int) -> Any:
    return np.full((2, 3, 3), value, np.uint8)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(bounded())


def start(batcher: Batcher, value: int, tasks: Sequence[TaskSpec] = (DEPTH,)) -> "asyncio.Task[Any]":
    return asyncio.create_task(batcher.infer(image(value), tasks, Timings()))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0.001)


def test_what_arrives_while_the_engine_is_busy_shares_the_next_batches() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        sizes: list[int] = []
        batcher = Batcher(engine, max_batch=3, on_batch=sizes.append)
        calls = [start(batcher, 0)]
        await settle()
        calls += [start(batcher, value) for value in range(1, 6)]
        await settle()
        assert (engine.batches, batcher.waiting) == ([[0]], 5)
        engine.go.set()
        answers = await asyncio.gather(*calls)
        assert engine.batches == [[0], [1, 2, 3], [4, 5]]
        assert sizes == [1, 3, 2]
        assert [answer[0][0, 0] for answer in answers] == [0, 1, 2, 3, 4, 5]
        assert engine.most == 1

    run(scenario)


def test_each_gets_its_own_tasks_of_the_union() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        engine.go.set()
        batcher = Batcher(engine, max_batch=4)
        first = start(batcher, 3, (DEPTH,))
        second = start(batcher, 5, (TASKS[4], DEPTH, TASKS[2]))
        (depth,), (parsing, depth2, normals) = await asyncio.gather(first, second)
        assert engine.tasks == [["depth", "parsing", "normals"]]
        assert [m[0, 0] for m in (depth, parsing, depth2, normals)] == [3, 20, 5, 10]

    run(scenario)


def test_a_delay_waits_for_company_but_not_for_a_full_batch() -> None:
    async def scenario() -> None:
        engine = GatedEngine(parallel=4)
        engine.go.set()
        batcher = Batcher(engine, max_batch=2, max_delay_s=3600)
        first = start(batcher, 1)
        await settle()
        assert engine.batches == []
        second = start(batcher, 2)
        await asyncio.gather(first, second)
        assert engine.batches == [[1, 2]]

    run(scenario)


def test_the_end_of_a_batch_cuts_no_delay_short() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        batcher = Batcher(engine, max_batch=2, max_delay_s=3600)
        calls = [start(batcher, 1), start(batcher, 2)]
        await settle()
        calls.append(start(batcher, 3))
        await settle()
        engine.go.set()
        await asyncio.gather(*calls[:2])
        await settle()
        assert (engine.batches, batcher.waiting) == ([[1, 2]], 1)
        await asyncio.gather(calls[2], start(batcher, 4))
        assert engine.batches == [[1, 2], [3, 4]]

    run(scenario)


def test_a_delay_ends() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        engine.go.set()
        batcher = Batcher(engine, max_batch=8, max_delay_s=0.02)
        await start(batcher, 1)
        assert engine.batches == [[1]]

    run(scenario)


def test_a_cancelled_call_leaves_the_queue() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        batcher = Batcher(engine, max_batch=4)
        running = start(batcher, 0)
        await settle()
        gone, stays = start(batcher, 1), start(batcher, 2)
        await settle()
        gone.cancel()
        await settle()
        assert batcher.waiting == 1
        engine.go.set()
        await asyncio.gather(running, stays)
        assert engine.batches == [[0], [2]]

    run(scenario)


def test_a_batch_stops_only_when_nobody_waits_for_it() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        batcher = Batcher(engine, max_batch=2)
        calls = [start(batcher, 1), start(batcher, 2)]
        await settle()
        calls[0].cancel()
        await settle()
        assert (engine.running, engine.stopped) == (1, 0)
        after = start(batcher, 3)
        calls[1].cancel()
        await settle()
        assert engine.stopped == 1
        engine.go.set()
        await after
        await batcher.close()
        assert engine.batches == [[1, 2], [3]]

    run(scenario)


def test_the_call_that_stops_a_batch_ends_after_it() -> None:
    """An engine takes its time to stop; until then the request keeps its slot, also when cancelled again."""

    class SlowToStop(GatedEngine):
        async def infer(self, images: Any, tasks: Sequence[TaskSpec]) -> list[Any]:
            try:
                return await super().infer(images, tasks)
            except asyncio.CancelledError:
                await self.go.wait()
                raise

    async def scenario() -> None:
        engine = SlowToStop()
        batcher = Batcher(engine)
        call = start(batcher, 1)
        await settle()
        for _ in range(2):
            call.cancel()
            await settle()
            assert (engine.stopped, call.done()) == (1, False)
        engine.go.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not batcher._running

    run(scenario)


def test_an_error_reaches_everybody_in_the_batch_and_nobody_else() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        engine.error = ZeroDivisionError()
        batcher = Batcher(engine, max_batch=2)
        calls = [start(batcher, 1), start(batcher, 2)]
        await settle()
        engine.go.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ZeroDivisionError] * 2
        engine.error = None
        assert (await start(batcher, 4))[0][0, 0] == 4

    run(scenario)


def test_parallel_batches_and_close_waits_for_them() -> None:
    async def scenario() -> None:
        engine = GatedEngine(parallel=2)
        batcher = Batcher(engine)
        calls = [start(batcher, value) for value in range(5)]
        await settle()
        assert (engine.running, batcher.waiting) == (2, 3)
        closing = asyncio.create_task(batcher.close())
        await settle()
        assert not closing.done()
        engine.go.set()
        await asyncio.gather(*calls)
        await closing
        assert engine.most == 2

    run(scenario)


def test_close_waits_for_who_waits_out_a_delay() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        engine.go.set()
        batcher = Batcher(engine, max_batch=2, max_delay_s=0.02)
        call = start(batcher, 1)
        await asyncio.sleep(0)
        assert (batcher.waiting, engine.batches) == (1, [])
        await batcher.close()
        assert engine.closed_after == 1
        assert (await call)[0][0, 0] == 1

    run(scenario)


def test_waiting_is_queue_time_and_the_batch_is_infer_time() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        batcher = Batcher(engine)
        first, second = Timings(), Timings()
        calls = [asyncio.create_task(batcher.infer(image(1), (DEPTH,), times)) for times in (first, second)]
        await settle()
        engine.go.set()
        await asyncio.gather(*calls)
        assert [span.stage for span in second.spans] == ["queue", "infer"]
        (_, arrival, taken), (_, began, _) = second.spans
        assert arrival < first.spans[1].end <= taken == began

    run(scenario)


@given(st.integers(1, 5), st.integers(1, 3), st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_everybody_gets_their_own_whatever_leaves(max_batch: int, parallel: int, gaps: list[int]) -> None:
    async def scenario() -> None:
        engine = GatedEngine(parallel)
        engine.go.set()
        batcher = Batcher(engine, max_batch, max_delay_s=0.0005)
        calls = []
        for value, gap in enumerate(gaps):
            calls.append(start(batcher, value))
            for _ in range(gap):
                await asyncio.sleep(0)
            if gap == 3:
                calls[value // 2].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for value, answer in enumerate(answers):
            assert isinstance(answer, asyncio.CancelledError) or answer[0][0, 0] == value  # type: ignore[index]
        await batcher.close()
        assert batcher.waiting == engine.running == 0
        assert all(len(batch) <= max_batch for batch in engine.batches)

    run(scenario)


@pytest.mark.parametrize("together", [2, 5])
def test_batched_maps_are_those_of_the_image_alone(bundle: Path, together: int) -> None:
    engine = OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1))
    photos = [noise(HEIGHT, WIDTH, seed) for seed in range(together)]

    async def infer(max_batch: int) -> list[Any]:
        batcher = Batcher(engine, max_batch)
        return await asyncio.gather(*(batcher.infer(photo, TASKS, Timings()) for photo in photos))

    alone, batched = asyncio.run(infer(1)), asyncio.run(infer(together))
    for one, other in zip(alone, batched, strict=True):
        for left, right in zip(one, other, strict=True):
            assert np.allclose(left, right, atol=1e-6)
