"""A version that Triton has retired: one reload for all who meet it, and no more than that."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from mtcp_serve.bundle.manifest import FileEntry, InputSpec, Manifest, TaskSpec
from mtcp_serve.engines.base import Engine
from mtcp_serve.errors import BundleError, DeadlineError, EngineLostError, VersionLostError
from mtcp_serve.inference.registry import Models
from mtcp_serve.server import reloading
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.reloading import AGAIN_S
from mtcp_serve.server.service import Service, Turn
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.clock import pass_over, run
from tests.mtcp_serve.process import PATIENCE_S
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, noise

TRITON = ("127.0.0.1:1",)


class FakeEngine:
    """Gives zeros until its version is ``error``-ed; counts what it is asked."""

    device = "triton"
    parallel = 2

    def __init__(self, version: str, name: str = "tiny") -> None:
        self.manifest = Manifest(
            name=name,
            version=version,
            input=InputSpec(height=HEIGHT, width=WIDTH),
            tasks=TASKS,
            files={"model.onnx": FileEntry(sha256="0" * 64, opset=18)},
        )
        self.asked = 0
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.closed = False

    async def infer(self, images: Any, tasks: Sequence[TaskSpec]) -> list[Any]:
        self.asked += 1
        error = self.error
        await self.go.wait()
        if error is not None:
            raise error
        shapes = [(len(images), *task.output_shape(HEIGHT, WIDTH)) for task in tasks]
        return [np.zeros(shape, task.array_type) for shape, task in zip(shapes, tasks, strict=True)]

    async def close(self) -> None:
        self.closed = True


class Tritons:
    """What there is to load: ``engines``, or ``fault``."""

    def __init__(self) -> None:
        self.loads = 0
        self.engines: list[Engine] = []
        self.fault: Exception | None = None

    def load(self, settings: Settings) -> list[Engine]:
        self.loads += 1
        if self.fault is not None:
            raise self.fault
        return self.engines


@pytest.fixture
def tritons(monkeypatch: pytest.MonkeyPatch) -> Tritons:
    tritons = Tritons()
    monkeypatch.setattr(reloading, "load_engines", tritons.load)
    return tritons


@asynccontextmanager
async def serving(*engines: Engine, **settings: Any) -> Any:
    given = {"triton": TRITON, "concurrency": 1, "queue_size": 8, **settings}
    async with Service(Settings(**given), engines, Metrics()) as service:
        yield service


async def ask(service: Service) -> str:
    """A request; which version answered it."""

    async def read() -> None:
        pass

    async def work(body: None, turn: Turn, models: Models) -> str:
        batcher = models["tiny"]
        (timings,) = turn.timings(1)
        await batcher.infer(noise(HEIGHT, WIDTH), TASKS, timings)
        return batcher.engine.manifest.version

    version, turn = await service.handle(read, work)
    assert len(turn.images) == 1  # an image that was inferred anew is one
    return version


def lost() -> VersionLostError:
    return VersionLostError("no Triton server answers with version 1 of tiny")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def in_loop(main: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main()

    run(body())


def test_one_reload_for_all_requests_and_each_is_sent_once_more(tritons: Tritons) -> None:
    """They have one slot between them, and the reload warms the new version up in it."""

    async def scenario() -> None:
        old, new = FakeEngine("1"), FakeEngine("2")
        async with serving(old) as service:
            assert await ask(service) == "1"
            old.error, tritons.engines = lost(), [new]
            assert await asyncio.gather(*(ask(service) for _ in range(6))) == ["2"] * 6
            assert tritons.loads == 1
            assert old.closed
            assert new.asked == 1 + 6  # the warm-up is one
            assert await ask(service) == "2"
            assert tritons.loads == 1

    in_loop(scenario)


def test_a_request_that_is_being_answered_keeps_its_model(tritons: Tritons) -> None:
    async def scenario() -> None:
        old, new = FakeEngine("1"), FakeEngine("2")
        async with serving(old, concurrency=2) as service:
            asked = old.asked
            old.go.clear()
            being_answered = asyncio.create_task(ask(service))
            while old.asked == asked:
                await asyncio.sleep(0)
            old.error, tritons.engines = lost(), [new]
            meets_it = asyncio.create_task(ask(service))
            while old.asked == asked + 1:
                await asyncio.sleep(0)
            first = service.models
            old.go.set()
            assert await being_answered == "1"
            assert await meets_it == "2"
            assert service.models is not first

    in_loop(scenario)


def test_the_next_version_may_go_while_the_one_before_is_still_being_closed(tritons: Tritons) -> None:
    async def scenario() -> None:
        first, second, third = FakeEngine("1"), FakeEngine("2"), FakeEngine("3")
        async with serving(first) as service:
            with service.models.lease():
                first.error, tritons.engines = lost(), [second]
                assert await ask(service) == "2"
                second.error, tritons.engines = lost(), [third]
                waits = asyncio.create_task(ask(service))
                while second.asked < 3:
                    await asyncio.sleep(0)
                assert not first.closed
            assert await waits == "3"
            assert tritons.loads == 2

    in_loop(scenario)


def test_what_cannot_be_served_is_tried_now_and_then_and_said_once(
    tritons: Tritons, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        old = FakeEngine("1")

        async def all_fail() -> None:
            found = await asyncio.gather(*(ask(service) for _ in range(3)), return_exceptions=True)
            assert [type(each) for each in found] == [VersionLostError] * 3

        async with serving(old) as service:
            before = service.models
            old.error, tritons.fault = lost(), BundleError("the manifest of version 2 is missing")
            for _ in range(3):
                await all_fail()
                assert tritons.loads == 1
            await pass_over(AGAIN_S)
            await all_fail()
            assert tritons.loads == 2
            assert errors(caplog) == [
                "reload failed, the old bundles stay: the manifest of version 2 is missing"
            ]
            await service.reloader.reload()  # who sends a signal is told
            assert len(errors(caplog)) == 2
            tritons.fault = ZeroDivisionError("unforeseen")
            await pass_over(AGAIN_S)
            await all_fail()
            assert errors(caplog)[2:] == ["reload failed, the old bundles stay: unforeseen"]
            cold = FakeEngine("2")
            cold.error = EngineLostError("it went again")
            tritons.fault, tritons.engines = None, [cold]
            await pass_over(AGAIN_S)
            await all_fail()
            assert cold.closed
            assert errors(caplog)[3:] == ["reload failed, the old bundles stay: it went again"]
            assert service.models is before
            tritons.engines = [FakeEngine("2")]
            await pass_over(AGAIN_S)
            assert await ask(service) == "2"

    in_loop(scenario)
    assert [bool(record.exc_info) for record in caplog.records if record.levelno == logging.ERROR] == [
        False,
        False,
        True,
        False,
    ]


def test_no_model_is_lost_unless_a_signal_says_so(tritons: Tritons, caplog: pytest.LogCaptureFixture) -> None:
    """While Triton loads it anew, it may have the other model only."""

    async def scenario() -> None:
        tiny, other = FakeEngine("1"), FakeEngine("1", "other")
        async with serving(tiny, other) as service:
            tiny.error, tritons.engines = lost(), [FakeEngine("1", "other")]
            with pytest.raises(VersionLostError):
                await ask(service)
            assert [batcher.engine for batcher in service.models] == [tiny, other]
            assert errors(caplog) == [
                "reload failed, the old bundles stay: "
                "Triton has no tiny any more; SIGHUP serves what it has left"
            ]
            await service.reloader.reload()
            assert [batcher.engine.manifest.name for batcher in service.models] == ["other"]

    in_loop(scenario)


def test_an_outage_reloads_nothing(tritons: Tritons) -> None:
    async def scenario() -> None:
        old = FakeEngine("1")
        async with serving(old) as service:
            old.error = EngineLostError("no Triton server answers")
            with pytest.raises(EngineLostError):
                await ask(service)

    in_loop(scenario)
    assert tritons.loads == 0


def test_engines_of_a_program_stay(tritons: Tritons) -> None:
    """The settings do not say where they came from."""

    async def scenario() -> None:
        old = FakeEngine("1")
        async with serving(old, triton=()) as service:
            old.error = lost()
            with pytest.raises(VersionLostError):
                await ask(service)

    in_loop(scenario)
    assert tritons.loads == 0


def test_a_signal_at_the_same_time_is_the_one_reload(tritons: Tritons) -> None:
    async def scenario() -> None:
        old, new = FakeEngine("1"), FakeEngine("2")
        async with serving(old, concurrency=2) as service:
            old.error, tritons.engines = lost(), [new]
            new.go.clear()
            signal = asyncio.create_task(service.reloader.reload())
            while not new.asked:
                await asyncio.sleep(0)
            request = asyncio.create_task(ask(service))
            while service.reloader._recovery is None:
                await asyncio.sleep(0)
            new.go.set()
            assert await request == "2"
            await signal
            assert tritons.loads == 1

    in_loop(scenario)


def test_who_does_not_wait_longer_leaves_the_reload_to_the_others(tritons: Tritons) -> None:
    async def scenario() -> None:
        old, new = FakeEngine("1"), FakeEngine("2")
        async with serving(old, deadline_s=5) as service:
            old.error, tritons.engines = lost(), [new]
            new.go.clear()
            first = asyncio.create_task(ask(service))
            while not new.asked:
                await asyncio.sleep(0)
            await pass_over(5)
            with pytest.raises(DeadlineError):
                await first
            second = asyncio.create_task(ask(service))
            while not service.admission.waiting:
                await asyncio.sleep(0)
            new.go.set()
            assert await second == "2"
            assert tritons.loads == 1
            assert (service.admission.running, service.admission.waiting) == (0, 0)

    in_loop(scenario)


def test_a_server_that_ends_gives_the_reload_up(tritons: Tritons) -> None:
    async def scenario() -> None:
        old, new = FakeEngine("1"), FakeEngine("2")
        async with serving(old) as service:
            old.error, tritons.engines = lost(), [new]
            new.go.clear()
            request = asyncio.create_task(ask(service))
            while not new.asked:
                await asyncio.sleep(0)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        assert old.closed
        assert new.closed

    in_loop(scenario)
