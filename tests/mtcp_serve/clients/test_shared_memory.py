"""Whose shared memory is whose, and when Triton is told to forget it."""

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from export.triton import Serving, write_repository
from export.triton.local import LocalTriton
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import InputSpec
from mtcp_serve.clients import AsyncTritonClient, ClientError, DeadlineError, TritonClient, _conversation
from mtcp_serve.clients._memory import Region
from mtcp_serve.clients._regions import Regions
from tests.mtcp_serve.support import GOOD, HEIGHT, SLOW, TASKS, WIDTH, make_bundle, noise
from tests.needs import needs_linux, needs_triton

SIZE = InputSpec(height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    folder = tmp_path_factory.mktemp("triton")
    bundle = Bundle.open(make_bundle(folder / "tiny"))
    write_repository(bundle, folder / "repository", backend="python", serving=Serving(threads=1, max_batch=1))
    with LocalTriton(folder / "repository") as server:
        yield server


def known(server: LocalTriton) -> int:
    """How many regions Triton keeps."""
    with InferenceServerClient(server.grpc) as raw:
        return len(raw.get_system_shared_memory_status().regions)


def give_up(client: TritonClient | AsyncTritonClient) -> None:
    """Let the next requests end long before their answers."""
    client._conversation.deadline_s = 0.05


@needs_triton
def test_triton_forgets_regions_of_requests_that_were_given_up(triton: LocalTriton) -> None:
    with TritonClient(triton.grpc, shared_memory=True) as client, TritonClient(triton.grpc) as other:
        client.predict(GOOD)
        give_up(client)
        for _ in range(5):
            with pytest.raises(DeadlineError):
                client.predict(SLOW)
            other.predict(GOOD)  # one runs at a time: whatever was given up has ended now
        client._conversation.deadline_s = 60
        client.predict(GOOD)
        assert known(triton) == 1
    assert known(triton) == 0


@needs_triton
def test_closing_waits_for_what_triton_still_works_on(
    triton: LocalTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_conversation, "_CLOSE_S", 60)  # on a busy machine the model takes a while
    client = TritonClient(triton.grpc, shared_memory=True)
    client.predict(GOOD)
    give_up(client)
    with pytest.raises(DeadlineError):
        client.predict(SLOW)
    client.close()
    assert known(triton) == 0

    async def asyncio_too() -> None:
        client = AsyncTritonClient(triton.grpc, shared_memory=True)
        await client.predict(GOOD)
        task = asyncio.create_task(client.predict(SLOW))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        assert known(triton) == 0
        await client.close()
        with pytest.raises(RuntimeError, match="closed"):
            await client.predict(GOOD)

    asyncio.run(asyncio_too())


@needs_triton
def test_a_client_is_closed_once_whoever_uses_it_meanwhile(triton: LocalTriton) -> None:
    client = TritonClient(triton.grpc, shared_memory=True)
    region = client._conversation._regions
    with client:
        client.predict(GOOD)
        lent = region.take()
        client.close()
        with region.lend(lent):  # by another thread's request, which ends now
            pass
    assert not list(Path("/dev/shm").glob(f"mtcp-{os.getpid()}-*"))
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.predict(GOOD)


@needs_linux
def test_a_child_leaves_the_regions_of_its_parent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork both have the same free region; with both writing to it, maps would be mixed."""
    regions, pid = Regions(), os.getpid()
    free, abandoned = (Region(1, SIZE, TASKS) for _ in range(2))
    with regions.lend(free):
        pass
    regions.still_used(abandoned)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: pid + 1)
        forked = Regions()
        forked._free, forked._abandoned = deque(regions._free), deque(regions._abandoned)
        assert forked.take() is None
        assert list(forked.abandoned()) == []
    assert regions.take() is free
    assert list(regions.abandoned()) == [abandoned]
    for region in (free, abandoned):
        region.write("image", noise(HEIGHT, WIDTH)[None])
        region.close()


@needs_linux
def test_a_region_has_its_memory_from_the_beginning() -> None:
    """What is only promised ends the process when it is written to and there is no room."""
    region = Region(4, SIZE, TASKS)
    try:
        assert Path("/dev/shm", region.key).stat().st_blocks * 512 >= region.size
    finally:
        region.close()


@needs_linux
def test_no_room_is_told_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    before = set(Path("/dev/shm").iterdir())
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ClientError, match=r"no room for .* in /dev/shm: No space left.*--shm-size"):
        Region(1, SIZE, TASKS)
    assert set(Path("/dev/shm").iterdir()) <= before


def test_regions_that_another_thread_gives_back_meanwhile() -> None:
    class Emptied(deque[Any]):
        """Another thread took the last one after this one had looked."""

        def __len__(self) -> int:
            return 1

    regions = Regions()
    regions._free = regions._abandoned = Emptied()
    assert regions.take() is None
    assert list(regions.abandoned()) == []
