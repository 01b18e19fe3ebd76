"""The front door for programs: three lines, threads, asyncio, batches."""

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import mtcp_serve
from mtcp_serve import Bundle, CameraRequest, ImageLimits, Model
from mtcp_serve.errors import (
    BundleError,
    BundleNotFoundError,
    ImageTooLargeError,
    InvalidParameterError,
    UnknownTaskError,
)
from mtcp_serve.inference.pipeline import Size
from tests.mtcp_serve.support import HEIGHT, STUCK, WIDTH, encode, noise
from tests.needs import needs_posix

NAMES = ["semseg", "depth", "normals", "saliency", "parsing"]
LARGE = noise(60, 50)


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[Model]:
    with mtcp_serve.load(bundle, threads=1) as model:
        yield model


def mean(pixels: NDArray[np.uint8]) -> Any:
    return pixels.astype(np.float64).mean(-1) / 25.5


def test_three_lines(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(noise(HEIGHT, WIDTH)))
    model = mtcp_serve.load(bundle)
    maps = model.predict(path, tasks=["depth"])
    np.testing.assert_allclose(maps["depth"], mean(noise(HEIGHT, WIDTH)), rtol=1e-5)
    assert list(maps) == ["depth"]
    model.close()


def test_it_says_what_it_is(model: Model, bundle: Path) -> None:
    assert repr(model) == f"<Model tiny 7 on cpu: {', '.join(NAMES)}>"
    assert model.tasks == tuple(NAMES)
    assert model.manifest == Bundle.open(bundle).manifest


def test_maps_have_the_size_of_the_image_or_of_the_network(model: Model) -> None:
    assert model.predict(LARGE)["normals"].shape == (60, 50, 3)
    small = model.predict(LARGE, size="model")
    assert small["normals"].shape == (HEIGHT, WIDTH, 3)
    assert small.metadata["image"]["height"] == 60
    assert small.overlay("depth").size == (WIDTH, HEIGHT)


def test_known_distances_correct_the_depth(model: Model) -> None:
    known = [(3, 3, 1.5), (20, 40, 8.0)]
    plain = model.predict(LARGE, ["depth", "normals"])
    maps = model.predict(LARGE, ["depth", "normals"], distances=known)
    assert maps.about("depth")["measured"]["points"] == 2
    np.testing.assert_array_equal(maps["normals"], plain["normals"])
    assert np.abs(maps.points(1).positions - plain.points(1).positions).max() > 0.1
    again = asyncio.run(model.apredict(LARGE, ["depth"], distances=np.array(known)))
    np.testing.assert_array_equal(again["depth"], maps["depth"])
    for tasks, wrong in (["depth"], [(50, 3, 1.5)]), (["normals"], known):
        with pytest.raises(InvalidParameterError):
            model.predict(LARGE, tasks, distances=wrong)


@pytest.mark.parametrize("size", ["input", "model"])
def test_a_prediction_can_be_pickled(model: Model, size: Size) -> None:
    jpeg = encode(noise(480, 640), "JPEG")  # read at a quarter, and again where that is not enough
    for source in (jpeg, LARGE, Image.fromarray(LARGE)):
        maps = model.predict(source, size=size, refine=size == "input", distances=[(3, 3, 1.5)])
        again = pickle.loads(pickle.dumps(maps))
        assert again.metadata == maps.metadata
        for task in NAMES:
            assert np.array_equal(again[task], maps[task])
            assert again.overlay(task) == maps.overlay(task)
        assert again.cutout() == maps.cutout()
        ours, theirs = maps.points(), again.points()
        assert np.array_equal(ours.positions, theirs.positions)
        assert np.array_equal(ours.colors, theirs.colors)


def test_the_camera_may_be_given(model: Model) -> None:
    camera = model.predict(LARGE, ["depth"], camera=CameraRequest(focal_px=70)).metadata["image"]["camera"]
    assert (camera["fx"], camera["source"]) == (70, "request")
    taken = CameraRequest(focal_px=70)
    together = model.predict_batch([LARGE, LARGE], ["depth"], camera=taken)
    for maps in (*together, *model.stream([LARGE], ["depth"], camera=taken)):
        assert maps.metadata["image"]["camera"] == camera


def test_wrong_requests_say_what_is_right(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UnknownTaskError, match="has no task 'depht'; it has semseg"):
        model.predict(LARGE, ["depht"])
    with pytest.raises(TypeError, match=r"list of names, such as \['depth'\]"):
        model.predict(LARGE, "depth")
    with pytest.raises(TypeError, match=r"list of names, such as \['depth'\]; this is generator"):
        model.predict(LARGE, (name for name in NAMES))  # type: ignore[arg-type]
    empty: list[Any] = [[], (), np.array([], str)]
    for tasks in empty:
        with pytest.raises(ValueError, match="name at least one task"):
            model.predict(LARGE, tasks)
    with pytest.raises(ValueError, match="size is 'huge'"):
        model.predict(LARGE, size="huge")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        model.predict(tmp_path / "missing.jpg")
    with pytest.raises(ValueError, match="in_flight is 0"):
        model.stream([LARGE], in_flight=0)


def test_a_bundle_that_cannot_be_loaded(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=f"no bundle in {tmp_path}"):
        mtcp_serve.load(tmp_path)
    with pytest.raises(BundleError, match="no engine 'abacus'"):
        mtcp_serve.load(Bundle.open(bundle), engine="abacus")


@pytest.mark.parametrize(
    ("name", "number", "least"),
    [("threads", -1, 0), ("streams", -1, 0), ("max_batch_size", 0, 1), ("max_batch_size", -1, 1)],
)
def test_numbers_that_would_never_give_a_map_are_refused(
    bundle: Path, name: str, number: int, least: int
) -> None:
    options: dict[str, Any] = {name: number}
    with pytest.raises(ValueError, match=f"{name} is {number}, it must be at least {least}"):
        mtcp_serve.load(bundle, **options)


def test_limits_are_the_callers(bundle: Path) -> None:
    with (
        mtcp_serve.load(bundle, limits=ImageLimits(max_pixels=100)) as model,
        pytest.raises(ImageTooLargeError, match="50 x 60"),
    ):
        model.predict(LARGE)


def test_maps_of_a_reduced_jpeg_keep_to_the_limits(bundle: Path) -> None:
    jpeg = encode(noise(128, 192), "JPEG")
    with mtcp_serve.load(bundle, threads=1, limits=ImageLimits(max_pixels=7000)) as model:
        assert model.predict(jpeg, size="model").metadata["image"]["width"] == 192
        with pytest.raises(ImageTooLargeError, match="24576 pixels, the limit is 7000"):
            model.predict(jpeg)


@pytest.mark.parametrize("max_batch_size", [1, 3])
def test_a_batch_is_its_images_one_by_one(bundle: Path, max_batch_size: int) -> None:
    images = [noise(HEIGHT, WIDTH, seed) for seed in range(7)]
    with mtcp_serve.load(bundle, threads=1, max_batch_size=max_batch_size) as model:
        found = model.predict_batch(iter(images), ["depth"])
    assert len(found) == 7
    for pixels, maps in zip(images, found, strict=True):
        np.testing.assert_allclose(maps["depth"], mean(pixels), rtol=1e-5)


def test_a_stream_reads_no_further_than_it_must(model: Model) -> None:
    taken: list[int] = []

    def images() -> Iterator[NDArray[np.uint8]]:
        for seed in range(100):
            taken.append(seed)
            yield noise(HEIGHT, WIDTH, seed)

    stream = model.stream(images(), ["depth"], in_flight=2)
    next(stream)
    next(stream)
    assert len(taken) <= 4
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["array", "tensor", "Pillow", "bytearray"])
def test_a_stream_may_give_one_buffer_filled_anew(model: Model, kind: str) -> None:
    frames = [noise(HEIGHT, WIDTH, seed) for seed in range(6)]
    pixels = frames[0].copy()
    buffers: dict[str, Any] = {
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "Pillow": Image.fromarray(pixels),
        "bytearray": bytearray(),
    }
    buffer = buffers[kind]

    def filled() -> Iterator[Any]:
        for frame in frames:
            pixels[:] = frame
            if kind == "Pillow":
                buffer.paste(Image.fromarray(frame))
            if kind == "bytearray":
                buffer[:] = encode(frame)
            yield buffer

    for frame, maps in zip(frames, model.predict_batch(filled(), ["depth"]), strict=True):
        np.testing.assert_allclose(maps["depth"], mean(frame), rtol=1e-5)


def test_a_stream_stops_at_what_cannot_be_read(model: Model) -> None:
    for wrong in (b"no image", np.zeros((4, 4), np.uint8)):
        stream = model.stream([LARGE, wrong, LARGE], ["depth"])
        assert next(stream)["depth"].shape == (60, 50)
        with pytest.raises(mtcp_serve.RequestError, match="not an image"):
            next(stream)


def test_threads_share_a_model(model: Model) -> None:
    images = [noise(HEIGHT, WIDTH, seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pixels: model.predict(pixels, ["depth"]), images))
    for pixels, maps in zip(images, found, strict=True):
        np.testing.assert_allclose(maps["depth"], mean(pixels), rtol=1e-5)


def test_asyncio_and_a_running_loop(model: Model) -> None:
    """In a notebook a loop runs already: blocking calls work there too, and others go on beside it."""

    async def scenario() -> None:
        blocking = model.predict(LARGE, ["depth"])
        together = await asyncio.gather(*(model.apredict(LARGE, ["depth"]) for _ in range(3)))
        for maps in together:
            assert np.array_equal(maps["depth"], blocking["depth"])

    asyncio.run(scenario())


def test_cancelling_stops_the_inference(bundle: Path) -> None:
    """The tiny model never ends on a green image: `close` would wait for it."""

    async def scenario(model: Model) -> None:
        task = asyncio.create_task(model.apredict(STUCK, ["depth"]))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with mtcp_serve.load(bundle, threads=1) as model:
        asyncio.run(scenario(model))


def test_a_closed_model_says_so(bundle: Path) -> None:
    before = threading.enumerate()
    model = mtcp_serve.load(bundle, threads=1)
    model.predict(LARGE, ["depth"])
    model.close()
    model.close()
    with pytest.raises(RuntimeError, match="the model is closed"):
        model.predict(LARGE)
    with pytest.raises(RuntimeError, match="the model is closed"):
        asyncio.run(model.apredict(LARGE))
    new = [thread for thread in threading.enumerate() if thread not in before]
    assert not [thread for thread in new if thread.name == "mtcp-model"]


FORKS = """
import os, sys
import mtcp_serve
import numpy as np

image = np.zeros((9, 9, 3), np.uint8)
with mtcp_serve.load(sys.argv[1], threads=1) as model:
    if sys.argv[2] == "used":
        model.predict(image)
    child = os.fork()
    if child == 0:
        try:
            print(*model.predict(image, ["depth"]), flush=True)
        except RuntimeError as error:
            print(error, flush=True)
            with mtcp_serve.load(sys.argv[1], threads=1) as own:
                print(*own.predict(image, ["depth"]), flush=True)
            model.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(*model.predict(image, ["saliency"]))
"""


@needs_posix
@pytest.mark.parametrize("used", [True, False])
def test_a_model_that_was_used_before_a_fork_says_so_in_the_child(bundle: Path, used: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, bundle, "used" if used else "new"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    if used:
        assert "used before this process was forked" in said.pop(0)
    assert said == ["depth", "saliency"]


def test_a_program_may_end_without_closing_it(bundle: Path) -> None:
    code = (
        "import sys, mtcp_serve, numpy as np\n"
        f"model = mtcp_serve.load({str(bundle)!r})\n"
        "model.predict(np.zeros((9, 9, 3), np.uint8))\n"
        "assert not {'torch', 'fastapi', 'uvicorn', 'mtcp_serve.server.settings'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_the_package_costs_nothing() -> None:
    code = (
        "import sys, mtcp_serve\n"
        "print([name for name in sys.modules if name.startswith('mtcp_serve')], 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["['mtcp_serve']", "False"]
