"""The door: bounds on what runs and what waits, deadlines, and no leak of slots."""

import asyncio
import threading
import time

import pytest

from mtcp_serve.errors import DeadlineError, OverloadedError
from mtcp_serve.server.admission import Admission
from mtcp_serve.utils.concurrency import in_thread
from tests.mtcp_serve.clock import pass_over, run


def test_bounds() -> None:
    async def scenario() -> tuple[int, int, int]:
        admission = Admission(concurrency=2, queue=3, deadline_s=60)
        go = asyncio.Event()
        running = most = 0

        async def job() -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1
            return 1

        jobs = [asyncio.create_task(admission.run(job)) for _ in range(9)]
        while running < 2:
            await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            admission.check()
        go.set()
        answers = await asyncio.gather(*jobs, return_exceptions=True)
        admission.check()
        refused = sum(isinstance(answer, OverloadedError) for answer in answers)
        return most, refused, answers.count(1)

    assert asyncio.run(scenario()) == (2, 4, 5)


def test_no_more_wait_than_may_while_a_slot_passes_on() -> None:
    """One that comes between the end of a job and the start of the next takes the next one's place."""

    async def scenario() -> None:
        admission = Admission(concurrency=2, queue=3, deadline_s=60)
        go = [asyncio.Event() for _ in range(6)]
        jobs = [asyncio.create_task(admission.run(each.wait)) for each in go[:5]]
        while admission.running < 2:
            await asyncio.sleep(0)
        assert (admission.jobs, admission.waiting) == (5, 3)
        go[0].set()
        while admission.jobs == 5:
            assert admission.waiting <= 3
            await asyncio.sleep(0)
        jobs.append(asyncio.create_task(admission.run(go[5].wait)))
        while (admission.jobs, admission.running) != (5, 2):
            assert admission.waiting <= 3
            await asyncio.sleep(0)
        assert admission.waiting == 3
        for each in go:
            each.set()
        await asyncio.gather(*jobs)
        assert (admission.jobs, admission.running, admission.waiting) == (0, 0, 0)

    asyncio.run(scenario())


def test_waiting_counts_towards_the_deadline_and_leaves_the_queue() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue=1, deadline_s=0.05)
        started = 0
        release = threading.Event()

        async def job() -> None:  # keeps the slot until both deadlines have passed
            nonlocal started
            started += 1
            await in_thread(lambda: release.wait(60))

        answers = await asyncio.gather(admission.run(job), admission.run(job), return_exceptions=True)
        assert [type(answer) for answer in answers] == [DeadlineError, DeadlineError]
        release.set()
        await admission.drain()
        admission.check()
        assert started == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_jump_of_the_clock_is_no_deadline(monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    now = time.time

    async def scenario() -> None:
        admission = Admission(concurrency=1, queue=1, deadline_s=60)
        go = asyncio.Event()

        async def job() -> str:
            await go.wait()
            return "done"

        jobs = [asyncio.create_task(admission.run(job)) for _ in range(2)]
        while not admission.running:
            await asyncio.sleep(0)
        monkeypatch.setattr(time, "time", lambda: now() + jump_s)
        assert admission.overdue == 0
        go.set()
        assert await asyncio.gather(*jobs) == ["done", "done"]

    asyncio.run(scenario())


def test_a_late_thread_keeps_its_slot_until_it_ends() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue=0, deadline_s=0.05)
        release = threading.Event()
        with pytest.raises(DeadlineError):
            await admission.run(lambda: in_thread(lambda: release.wait(60)))
        with pytest.raises(OverloadedError):
            await admission.run(lambda: asyncio.sleep(0))
        release.set()
        await admission.drain()
        assert await admission.run(lambda: asyncio.sleep(0, "free again")) == "free again"

    asyncio.run(scenario())


def test_a_job_of_the_server_waits_for_a_slot_and_is_no_request() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue=1, deadline_s=60)
        first, own = asyncio.Event(), asyncio.Event()
        running: list[str] = []

        async def job(name: str, go: asyncio.Event) -> str:
            running.append(name)
            await go.wait()
            running.remove(name)
            return name

        request = asyncio.create_task(admission.run(lambda: job("request", first)))
        await pass_over(0)
        between = asyncio.create_task(admission.run_between(lambda: job("own", own)))
        await pass_over(0)
        await pass_over(59)
        assert running == ["request"]
        assert (admission.running, admission.waiting) == (1, 0)
        first.set()
        assert await request == "request"
        later = asyncio.create_task(admission.run(lambda: job("later", first)))
        await pass_over(0)
        assert running == ["own"]
        assert (admission.running, admission.waiting) == (0, 1)
        own.set()
        assert [await between, await later] == ["own", "later"]

    run(scenario())


def test_a_job_of_the_server_begins_beside_slots_that_stay_taken() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue=0, deadline_s=60)
        release = threading.Event()
        stuck = asyncio.create_task(admission.run(lambda: in_thread(lambda: release.wait(60))))
        await pass_over(0)
        between = asyncio.create_task(admission.run_between(lambda: asyncio.sleep(0, "done")))
        await pass_over(0)
        await pass_over(59)
        assert not between.done()
        await pass_over(2)
        assert await between == "done"
        release.set()
        with pytest.raises(DeadlineError):
            await stuck
        await admission.drain()
        assert await admission.run(lambda: asyncio.sleep(0, "free again")) == "free again"
        with pytest.raises(ZeroDivisionError):
            await admission.run_between(_fail)
        assert await admission.run(lambda: asyncio.sleep(0, "still free")) == "still free"

    run(scenario())


async def _fail() -> None:
    raise ZeroDivisionError


def test_a_cancelled_caller_cancels_its_job() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue=0, deadline_s=60)
        never = asyncio.Event()
        caller = asyncio.create_task(admission.run(never.wait))
        while not admission.running:
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        async with asyncio.timeout(60):
            await admission.drain()
        admission.check()

    asyncio.run(scenario())


def test_a_failing_job_gives_its_slot_back() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue=0, deadline_s=10)

        async def job() -> None:
            raise ZeroDivisionError

        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await admission.run(job)

    asyncio.run(scenario())


def test_cancelling_a_thread_signals_it_and_waits() -> None:
    async def scenario() -> list[bool]:
        begun, stop = threading.Event(), threading.Event()
        stopped: list[bool] = []

        def work() -> None:
            begun.set()
            stopped.append(stop.wait(60))
            raise ZeroDivisionError

        task = asyncio.create_task(in_thread(work, on_cancel=stop.set))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return stopped

    assert asyncio.run(scenario()) == [True]
