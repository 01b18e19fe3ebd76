"""The generated repositories in a real Triton, and the clients that talk to it."""

import asyncio
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient

import mtcp_serve
from export.errors import ExportError
from export.triton import Serving, local, write_repository
from export.triton.local import LocalTriton
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.clients import (
    AsyncTritonClient,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    Outcome,
    OverloadedError,
    Prediction,
    TritonClient,
    UnavailableError,
    images_in,
)
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.onnxruntime import OnnxEngine
from mtcp_serve.inference.camera import CameraRequest
from tests.mtcp_serve.support import (
    GOOD,
    GRAPH,
    HEIGHT,
    STUCK,
    WIDTH,
    encode,
    make_bundle,
    noise,
    put_weights_apart,
)
from tests.needs import needs_triton

pytestmark = needs_triton

ASTRONAUT = Path(__file__).parents[3] / "docs" / "astronaut.jpg"
MODEL = "mtcp-lite"
SHIPPED = Manifest.load(DEFAULT_BUNDLE)
SIZE = (SHIPPED.input.height, SHIPPED.input.width)
ONE_THREAD = Serving(threads=1)
DOUBLED = GRAPH.replace("float per_metre = {25.5}", "float per_metre = {12.75}")
NOISE = noise(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bundle, and a tiny model in two versions: the second one's depth is twice the first's."""
    folder = tmp_path_factory.mktemp("triton")
    out = folder / "repository"
    write_repository(Bundle.open(DEFAULT_BUNDLE), out, backend="python", serving=ONE_THREAD)
    for version, graph in ((1, GRAPH), (2, DOUBLED)):
        bundle = make_bundle(folder / f"tiny-{version}", graph)
        write_repository(Bundle.open(bundle), out, backend="python", version=version, serving=ONE_THREAD)
    return out


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[LocalTriton]:
    with LocalTriton(repository) as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["grpc", "shared-memory"])
def client(request: pytest.FixtureRequest, triton: LocalTriton) -> Iterator[TritonClient]:
    with TritonClient(triton.grpc, MODEL, shared_memory=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def embedded() -> OnnxEngine:
    return OnnxEngine.load(Bundle.open(DEFAULT_BUNDLE), EngineOptions("cpu", threads=1))


def expected(engine: OnnxEngine, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    tasks = engine.manifest.tasks
    batches = asyncio.run(engine.infer(pixels[None], tasks))
    return {task.name: batch[0] for task, batch in zip(tasks, batches, strict=True)}


def pixels_of(client: TritonClient, seed: int) -> NDArray[np.uint8]:
    size = client.manifest().input
    return noise(size.height, size.width, seed)


def check_close(maps: Prediction, wanted: dict[str, NDArray[Any]]) -> None:
    """Images that ran in one batch: another blocking of the same sums, so the last bits may differ."""
    for task, values in maps.items():
        if maps.about(task)["kind"] == "labels":
            assert (values == wanted[task]).mean() > 0.999
        else:
            np.testing.assert_allclose(values, wanted[task], atol=1e-4)


def version_of(maps: Prediction) -> str:
    """Triton's number of the version that answered."""
    (model,) = maps.metadata["models"]
    return str(model["version"])


def test_maps_equal_the_embedded_engines_exactly(client: TritonClient, embedded: OnnxEngine) -> None:
    for seed in range(2):
        pixels = pixels_of(client, seed)
        (maps,) = client.infer(pixels[None])
        wanted = expected(embedded, pixels)
        assert list(maps) == list(wanted) == [task.name for task in embedded.manifest.tasks]
        for name, values in wanted.items():
            assert maps[name].dtype == values.dtype
            np.testing.assert_array_equal(maps[name], values)


def test_an_image_is_read_as_the_gateway_reads_it(client: TritonClient, embedded: OnnxEngine) -> None:
    from mtcp_serve.inference.images import ImageLimits, decode

    size = embedded.manifest.input
    photo = decode(ASTRONAUT.read_bytes(), ImageLimits(), enough=2 * size.width)
    wanted = expected(embedded, photo.resized(size.height, size.width))
    for maps in (client.predict(ASTRONAUT), client.predict(ASTRONAUT.read_bytes(), ["depth"])):
        np.testing.assert_array_equal(maps["depth"], wanted["depth"])
    assert set(maps) == {"depth"}


def test_a_prediction_knows_its_image(client: TritonClient) -> None:
    maps = client.predict(ASTRONAUT, ["depth"], size="input")
    assert maps["depth"].shape == (512, 512)
    assert maps.metadata["image"]["format"] == "JPEG"
    assert maps.overlay("depth").size == (512, 512)
    assert pickle.loads(pickle.dumps(maps)).overlay("depth") == maps.overlay("depth")
    assert client.predict(ASTRONAUT, ["depth"]).image("depth").size == SIZE[::-1]


def test_maps_follow_the_edges_of_the_image_where_that_is_wanted(
    client: TritonClient, triton: LocalTriton, embedded: OnnxEngine
) -> None:
    with mtcp_serve.load(threads=1) as model:
        wanted = model.predict(ASTRONAUT, ["depth", "saliency"], refine=True)

    async def ask() -> Prediction:
        async with AsyncTritonClient(triton.grpc, MODEL) as other:
            return await other.predict(ASTRONAUT, ["depth", "saliency"], size="input", refine=True)

    for maps in (
        client.predict(ASTRONAUT, ["depth", "saliency"], size="input", refine=True),
        asyncio.run(ask()),
    ):
        assert maps.about("depth")["resampled"] == "guided"
        np.testing.assert_array_equal(maps["depth"], wanted["depth"])
        np.testing.assert_array_equal(np.asarray(maps.cutout()), np.asarray(wanted.cutout()))
    with pytest.raises(InvalidRequestError, match="but size is model"):
        client.predict(ASTRONAUT, refine=True)


def test_known_distances_correct_the_depth(client: TritonClient, triton: LocalTriton) -> None:
    known = [(250, 250, 1.2), (460, 50, 3.5)]
    with mtcp_serve.load(threads=1) as model:
        wanted = model.predict(ASTRONAUT, ["depth"], distances=known)

    async def ask() -> Prediction:
        async with AsyncTritonClient(triton.grpc, MODEL) as other:
            return await other.predict(ASTRONAUT, ["depth"], size="input", distances=known)

    for maps in (client.predict(ASTRONAUT, ["depth"], size="input", distances=known), asyncio.run(ask())):
        np.testing.assert_allclose(maps["depth"], wanted["depth"], rtol=1e-4)
        assert maps.about("depth")["measured"] == wanted.about("depth")["measured"]
    for tasks, wrong in (["depth"], [(600, 3, 1.5)]), (["normals"], known), (["depth"], [(1, 2)]):
        with pytest.raises(InvalidRequestError):
            client.predict(ASTRONAUT, tasks, distances=wrong)


def test_the_manifest_comes_from_the_server(client: TritonClient) -> None:
    assert client.manifest() == Manifest.load(DEFAULT_BUNDLE)
    maps = client.infer(pixels_of(client, 0)[None], ["parsing"])[0]
    about = maps.about("parsing")
    assert about["labels"][2]["name"] == "skin"
    assert (version_of(maps), about["model"]) == (SHIPPED.version, MODEL)


def test_batches_of_any_size_share_the_client(client: TritonClient, embedded: OnnxEngine) -> None:
    for seeds in ([1, 2], [2]):
        images = np.stack([pixels_of(client, seed) for seed in seeds])
        for image, maps in zip(images, client.infer(images), strict=True):
            check_close(maps, expected(embedded, image))


def test_threads_share_a_client(client: TritonClient, embedded: OnnxEngine) -> None:
    images = [pixels_of(client, seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda image: client.infer(image[None])[0], images))
    for image, maps in zip(images, answers, strict=True):
        check_close(maps, expected(embedded, image))


def test_a_folder_streams_in_order_and_a_bad_image_harms_nobody(triton: LocalTriton, tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(encode(noise(HEIGHT, WIDTH, index)))
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("not read")
    photos = images_in(tmp_path)
    assert len(photos) == 5
    taken = CameraRequest(focal_px=70)

    async def asyncio_stream() -> list[Outcome]:
        async with AsyncTritonClient(triton.grpc, "tiny", version=1, shared_memory=True) as client:
            return [outcome async for outcome in client.stream(photos, in_flight=3, camera=taken)]

    with TritonClient(triton.grpc, "tiny", version=1) as client:
        blocking = list(client.stream(photos, ["depth"], in_flight=3, camera=taken))
        streams = [blocking, asyncio.run(asyncio_stream())]
    for outcomes in streams:
        assert [outcome.image for outcome in outcomes] == photos
        for index, outcome in enumerate(outcomes):
            if index == 2:
                assert isinstance(outcome.error, InvalidRequestError)
                assert "2.png" in str(outcome.error)
            else:
                mean = noise(HEIGHT, WIDTH, index).astype(np.float64).mean(-1)
                assert outcome.prediction is not None
                assert outcome.prediction.metadata["image"]["camera"]["fx"] == 70
                np.testing.assert_allclose(outcome.prediction["depth"], mean / 25.5, rtol=1e-5)


def test_a_stream_may_give_one_buffer_filled_anew(triton: LocalTriton) -> None:
    def filled() -> Iterator[NDArray[np.uint8]]:
        buffer = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        for seed in range(6):
            buffer[:] = noise(HEIGHT, WIDTH, seed)
            yield buffer
        yield np.zeros((4, 4), np.uint8)

    async def asyncio_stream() -> list[Outcome]:
        async with AsyncTritonClient(triton.grpc, "tiny", version=1) as client:
            return [outcome async for outcome in client.stream(filled(), ["depth"])]

    with TritonClient(triton.grpc, "tiny", version=1) as client:
        streams = [list(client.stream(filled(), ["depth"])), asyncio.run(asyncio_stream())]
    for *outcomes, wrong in streams:
        for seed, outcome in enumerate(outcomes):
            assert outcome.prediction is not None
            mean = noise(HEIGHT, WIDTH, seed).astype(np.float64).mean(-1)
            np.testing.assert_allclose(outcome.prediction["depth"], mean / 25.5, rtol=1e-5)
        assert str(wrong.error).startswith("the image (ndarray): an array of shape [4, 4]")


def test_a_stream_of_no_image_at_a_time_is_refused() -> None:
    async def asyncio_stream() -> None:
        async with AsyncTritonClient("127.0.0.1:1", "tiny") as client:
            await anext(client.stream([NOISE], in_flight=0))

    with pytest.raises(ValueError, match="in_flight is 0"):
        asyncio.run(asyncio_stream())
    with TritonClient("127.0.0.1:1", "tiny") as client, pytest.raises(ValueError, match="in_flight is 0"):
        next(client.stream([NOISE], in_flight=0))


@pytest.mark.parametrize("shared_memory", [False, True])
def test_asyncio_gives_the_same_maps(triton: LocalTriton, client: TritonClient, shared_memory: bool) -> None:
    async def predict() -> list[Prediction]:
        async with AsyncTritonClient(triton.grpc, MODEL, shared_memory=shared_memory) as other:
            assert await other.manifest() == client.manifest()
            return [await other.predict(ASTRONAUT), await other.predict(ASTRONAUT, ["depth"])]

    whole, part = asyncio.run(predict())
    wanted = client.predict(ASTRONAUT)
    assert list(whole) == list(wanted)
    for name in wanted:
        np.testing.assert_array_equal(whole[name], wanted[name])
    np.testing.assert_array_equal(part["depth"], wanted["depth"])


def test_versions_are_told_apart(triton: LocalTriton) -> None:
    mean = NOISE.astype(np.float64).mean(-1)
    for version, answers, factor in ((1, "1", 1), (2, "2", 2), (None, "2", 2)):
        with TritonClient(triton.grpc, "tiny", version=version) as client:
            maps = client.predict(NOISE, ["depth"])
            assert version_of(maps) == answers
            np.testing.assert_allclose(maps["depth"], factor * mean / 25.5, rtol=1e-5)
    with (
        TritonClient(triton.grpc, "tiny", version=3) as client,
        pytest.raises(NotFoundError, match="version 3"),
    ):
        client.predict(NOISE)


def test_a_new_version_is_used_when_it_is_loaded_and_the_model_can_go(
    repository: Path, triton: LocalTriton, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "another")
    with TritonClient(triton.grpc, "tiny") as client, InferenceServerClient(triton.grpc) as control:
        assert version_of(client.predict(NOISE)) == "2"
        write_repository(Bundle.open(bundle), repository, backend="python", version=3, serving=ONE_THREAD)
        control.load_model("tiny")
        maps = client.predict(NOISE)
        assert (version_of(maps), client.manifest()) == ("3", Manifest.load(bundle))
        control.unload_model("tiny")
        with pytest.raises(NotFoundError, match="tiny"):
            client.predict(NOISE)
        with TritonClient(triton.grpc) as alone:
            assert alone.model == MODEL
        control.load_model("tiny")
        assert version_of(client.predict(NOISE)) == "3"
        with TritonClient(triton.grpc) as several, pytest.raises(NotFoundError, match="mtcp-lite, tiny"):
            several.predict(NOISE)


def test_what_the_model_does_not_take_is_refused(triton: LocalTriton, client: TritonClient) -> None:
    for images in (
        np.zeros((1, 7, 9, 3), np.uint8),
        np.zeros((*SIZE, 3), np.uint8),
        np.zeros((1, *SIZE, 3), np.float32),
        np.zeros((0, *SIZE, 3), np.uint8),
    ):
        with pytest.raises(InvalidRequestError, match="takes uint8"):
            client.infer(images)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="batch-size must be <= 8"):
        client.infer(np.zeros((9, *SIZE, 3), np.uint8))
    with pytest.raises(NotFoundError, match="no task 'depht'; it has semseg, depth"):
        client.predict(ASTRONAUT, ["depht"])
    with pytest.raises(TypeError, match=r"tasks is a list of names, such as \['depth'\]"):
        client.predict(ASTRONAUT, "depth")
    with pytest.raises(ValueError, match="name at least one task"):
        client.predict(ASTRONAUT, [])
    with pytest.raises(ValueError, match="size is 'large'"):
        client.predict(ASTRONAUT, size="large")  # type: ignore[arg-type]
    for photo in (b"no image", np.zeros((4, 4), np.uint8), ASTRONAUT / "missing.jpg"):
        with pytest.raises(InvalidRequestError):
            client.predict(photo)
    with TritonClient(triton.grpc, "nobody") as other, pytest.raises(NotFoundError, match="nobody"):
        other.predict(ASTRONAUT)


def test_triton_itself_refuses_a_wrong_shape(triton: LocalTriton, client: TritonClient) -> None:
    """What the client would not send."""
    from tritonclient.grpc import InferInput
    from tritonclient.utils import InferenceServerException

    from mtcp_serve.clients._wire import translate

    wrong = InferInput("image", [1, 7, 9, 3], "UINT8")
    wrong.set_data_from_numpy(np.zeros((1, 7, 9, 3), np.uint8))
    with InferenceServerClient(triton.grpc) as raw, pytest.raises(InferenceServerException) as caught:
        raw.infer(MODEL, [wrong])
    error = translate(caught.value)
    assert isinstance(error, InvalidRequestError)
    assert f"Expected [-1,{SIZE[0]},{SIZE[1]},3], got [1,7,9,3]" in str(error)


@pytest.mark.parametrize("damaged", ["model.onnx", "weights.bin"])
def test_a_damaged_model_is_not_loaded(
    damaged: str, repository: Path, triton: LocalTriton, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    put_weights_apart(bundle, "weights.bin")
    write_repository(Bundle.open(bundle), tmp_path / "other", backend="python", version=9)
    file = tmp_path / "other" / "tiny" / "9" / damaged
    file.write_bytes(file.read_bytes() + b"x")
    with InferenceServerClient(triton.grpc) as control:
        (tmp_path / "other" / "tiny" / "9").rename(repository / "tiny" / "9")
        with pytest.raises(Exception, match=rf"the manifest says {re.escape(damaged)} has SHA-256"):
            control.load_model("tiny")
    (repository / "tiny" / "9").rename(tmp_path / "9")


def test_numpy_that_this_triton_misreads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This Triton was built for numpy 1; the environment of the tests has numpy 2."""
    assert np.lib.NumpyVersion(np.__version__) >= "2.0.0"
    write_repository(Bundle.open(make_bundle(tmp_path / "tiny")), tmp_path / "repository", backend="python")
    monkeypatch.setattr(local, "HOME", Path(sys.prefix))
    with pytest.raises(ExportError, match=rf"cannot exchange arrays with numpy {re.escape(np.__version__)}"):
        LocalTriton(tmp_path / "repository")


def test_overload_then_death_then_a_new_start(tmp_path: Path) -> None:
    """The tiny model never ends on a green image: it fills the server, whose queue holds one request."""
    before = regions()
    out = tmp_path / "repository"
    serving = Serving(threads=1, max_batch=1, queue_size=1, queue_timeout_ms=60_000)
    write_repository(Bundle.open(make_bundle(tmp_path / "tiny")), out, backend="python", serving=serving)
    first = LocalTriton(out)
    try:
        with (
            TritonClient(first.grpc, shared_memory=True) as client,
            TritonClient(first.grpc, "tiny", deadline_s=2) as hasty,
            ThreadPoolExecutor(8) as pool,
        ):
            wanted = client.predict(GOOD)["depth"]
            hasty.manifest()
            with pytest.raises(DeadlineError):
                hasty.predict(STUCK)
            late = [pool.submit(client.predict, GOOD) for _ in range(6)]
            refused = [future for future in late if isinstance(error_within(8, future), OverloadedError)]
            assert len(refused) == 5
            with InferenceServerClient(first.grpc) as raw:
                known = len(raw.get_system_shared_memory_status().regions)
                for _ in range(2):
                    with pytest.raises(OverloadedError):
                        client.predict(GOOD)
                assert len(raw.get_system_shared_memory_status().regions) == known
            first.kill()
            (lost,) = (future for future in late if future not in refused)
            assert type(lost.exception()) is UnavailableError
            with pytest.raises(UnavailableError) as caught:
                client.predict(GOOD)
            assert caught.value.code == "UNAVAILABLE"
            with LocalTriton(out, grpc_port=first.grpc_port):
                np.testing.assert_array_equal(client.predict(GOOD)["depth"], wanted)
    finally:
        first.kill()
    assert not regions() - before, "shared memory is left behind"


def test_refused_requests_of_asyncio_use_their_regions_again(tmp_path: Path) -> None:
    serving = Serving(threads=1, max_batch=1, queue_size=1)
    bundle = make_bundle(tmp_path / "tiny")
    write_repository(Bundle.open(bundle), tmp_path / "repository", backend="python", serving=serving)

    async def predict(endpoint: str) -> list[int]:
        with InferenceServerClient(endpoint) as raw:
            async with AsyncTritonClient(endpoint, shared_memory=True) as client:
                await client.manifest()
                waiting = {asyncio.create_task(client.predict(STUCK)) for _ in range(4)}
                while len(waiting) > 2:  # one runs, one waits, the others are refused
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    assert {type(task.exception()) for task in done} == {OverloadedError}
                counts = []
                for _ in range(3):
                    with pytest.raises(OverloadedError):
                        await client.predict(GOOD)
                    counts.append(len(raw.get_system_shared_memory_status().regions))
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
        return counts

    with LocalTriton(tmp_path / "repository") as server:
        counts = asyncio.run(predict(server.grpc))
        server.kill()
    assert counts == [4, 4, 4]


def test_a_local_triton_ends_with_its_command(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    write_repository(Bundle.open(bundle), tmp_path / "repository", backend="python")
    with local.reserve() as grpc, local.reserve() as http:
        port = grpc.getsockname()[1]
        options = ["--grpc-port", str(port), "--http-port", str(http.getsockname()[1])]
        command = [sys.executable, "-m", "export.triton.local", str(tmp_path / "repository"), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert f"gRPC on 127.0.0.1:{port}" in process.stdout.readline()
            with TritonClient(f"127.0.0.1:{port}") as client:
                client.predict(GOOD)
            process.terminate()
            assert process.wait(timeout=600) == 0
    with TritonClient(f"127.0.0.1:{port}") as client, pytest.raises(UnavailableError):
        client.predict(GOOD)
    assert not list(Path("/dev/shm").glob(f"mtcp-triton-{process.pid}-*"))


def regions() -> set[str]:
    """The client's shared memory regions on this machine that this process made."""
    return {path.name for path in Path("/dev/shm").glob(f"mtcp-{os.getpid()}-*")}


def error_within(seconds: float, future: Future[Prediction]) -> BaseException | None:
    """The error of a call, None if it has not ended by then."""
    try:
        return future.exception(seconds)
    except TimeoutError:
        return None


def test_the_example(triton: LocalTriton, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    command = [
        sys.executable,
        "-m",
        "clients.examples.triton_predict",
        str(ASTRONAUT),
        str(tmp_path / "bad.png"),
    ]
    options = ["--endpoint", triton.grpc, "--model", MODEL, "--shared-memory"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{ASTRONAUT}: {MODEL} version {SHIPPED.version}" in done.stdout
    assert f"  semseg: uint8 {SIZE[0]}x{SIZE[1]}: other, " in done.stdout
    assert "bad.png" in done.stderr
