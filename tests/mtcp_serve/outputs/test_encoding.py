"""What is encoded can be decoded again, to the precision that the format promises."""

import base64
import gc
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from io import BytesIO
from threading import Barrier, get_ident
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mtcp_serve.bundle.manifest import DepthTask, FileEntry, InputSpec, Manifest, ProbabilityTask, TaskSpec
from mtcp_serve.inference.images import ImageInfo
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds.confidence import ConfidenceTask
from mtcp_serve.outputs.formats import BATCH_FORMATS, FORMATS, Options
from mtcp_serve.outputs.formats import archive as archive_module
from mtcp_serve.outputs.formats import npz as npz_module
from mtcp_serve.outputs.formats.archive import ArrayArchive
from mtcp_serve.outputs.metadata import describe
from mtcp_serve.outputs.png import IMAGE_KEY, TEXT_KEY
from mtcp_serve.outputs.schemas import PredictOut
from tests.mtcp_serve.support import TASKS

SEMSEG, DEPTH, NORMALS, SALIENCY, _ = TASKS
RELATIVE = DepthTask(name="depth", range=(2.0, 50.0), unit="relative", metric=False)
SHAPE = st.tuples(st.integers(1, 12), st.integers(1, 12))
POOL = ThreadPoolExecutor(2)


def floats(low: float, high: float) -> Any:
    return SHAPE.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(low, high, width=32)))


def prediction(task: TaskSpec, values: Any, size: tuple[int, int] | None = None) -> DenseMaps:
    height, width = size or values.shape[:2]
    manifest = Manifest(
        name="tiny",
        version="7",
        input=InputSpec(height=values.shape[0], width=values.shape[1]),
        tasks=(task,),
        files={"model.onnx": FileEntry(sha256="0" * 64)},
    )
    info = ImageInfo(width, height, "PNG", "RGB", exif_rotated=True, animated=False)
    maps = (DenseMap("tiny", task, values, height, width),)
    return DenseMaps((manifest,), info, maps, Timings())


def files(format: str, prediction: DenseMaps, visualize: bool = False) -> tuple[Any, dict[str, bytes]]:
    """The metadata and the PNG files of an answer, by their name, whatever the format; read by others."""
    writer = FORMATS[format](POOL, Options(visualize=visualize))
    body = writer.finish(writer.add(prediction))
    name = prediction.maps[0].task.name
    match format:
        case "json":
            answer = json.loads(body)
            entry = answer["maps"][name]
            found = {f"{name}.png": base64.b64decode(entry.pop("png"))}
            if visualize:
                found[f"{name}.visualization.png"] = base64.b64decode(entry.pop("visualization"))
        case "zip":
            with ZipFile(BytesIO(body)) as archive:
                assert archive.testzip() is None
                found = {file: archive.read(file) for file in archive.namelist()}
            answer = json.loads(found.pop("metadata.json"))
        case "multipart":
            head = f"Content-Type: {writer.content_type}\r\n\r\n".encode()
            message = message_from_bytes(head + body)
            parts = message.get_payload()
            assert isinstance(parts, list)
            found = {}
            for part in parts:
                assert isinstance(part, Message)
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                found[str(part.get_filename())] = content
            answer = json.loads(found.pop("metadata.json"))
        case "png":
            found = {f"{name}.visualization.png" if visualize else f"{name}.png": body}
            answer = None
        case _:
            raise AssertionError(format)
    return answer, found


PNG_FORMATS = ["json", "zip", "multipart", "png"]
ANY_FORMAT = st.sampled_from(PNG_FORMATS)


def through(format: str, task: TaskSpec, values: Any) -> tuple[Any, Image.Image]:
    """The map's metadata and its decoded PNG."""
    answer, found = files(format, prediction(task, values))
    (data,) = found.values()
    image = Image.open(BytesIO(data))
    image.load()
    metadata = json.loads(image.info[TEXT_KEY])
    if answer is not None:
        assert answer["maps"] == {task.name: metadata}
        assert answer["image"] == json.loads(image.info[IMAGE_KEY])
    assert json.loads(image.info[IMAGE_KEY])["exif_rotated"] is True
    assert (image.info["Source"], image.info["Title"]) == ("tiny 7", task.name)
    assert (metadata["model"], metadata["kind"]) == ("tiny", task.kind)
    assert (metadata["width"], metadata["height"]) == image.size
    return metadata, image


@given(
    ANY_FORMAT, SHAPE.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255])))
)
def test_labels_png(format: str, values: Any) -> None:
    metadata, image = through(format, SEMSEG, values)
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), values)
    assert metadata["present"] == sorted({*np.unique(values).tolist()} - {255})
    assert metadata["labels"][2] == {"id": 2, "name": "bright", "color": "#f0e0d0"}
    for label in metadata["labels"]:
        rows, columns = np.nonzero(values == label["id"])
        if rows.size:
            colour = image.convert("RGB").getpixel((int(columns[0]), int(rows[0])))
            assert "#{:02x}{:02x}{:02x}".format(*colour) == label["color"]  # type: ignore[misc]


@given(ANY_FORMAT, floats(0, 80))
def test_metric_depth_png_is_millimetres(format: str, values: Any) -> None:
    metadata, image = through(format, DEPTH, values)
    decoded = np.asarray(image).astype(np.float64) * metadata["png_scale"]
    valid = values > 0
    assert image.mode.startswith("I;16")
    assert np.array_equal(decoded > 0, valid)
    expected = values[valid].clip(0.001, 65.535)
    assert np.all(np.abs(decoded[valid] - expected) <= 0.00051)
    assert ("min" in metadata) == valid.any()
    if valid.any():
        assert metadata["min"] == pytest.approx(values[valid].min(), rel=1e-5)
        assert metadata["max"] == pytest.approx(values[valid].max(), rel=1e-5)


@given(ANY_FORMAT, floats(0, 60))
def test_relative_depth_png_spans_its_range(format: str, values: Any) -> None:
    metadata, image = through(format, RELATIVE, values)
    pixels = np.asarray(image).astype(np.float64)
    valid = values > 0
    assert metadata["unit"] == "relative"
    assert np.array_equal(pixels > 0, valid)
    decoded = metadata["png_offset"] + metadata["png_scale"] * pixels[valid]
    assert np.all(np.abs(decoded - values[valid].clip(2, 50)) <= metadata["png_scale"] * 0.52)


@given(ANY_FORMAT, floats(-1, 1))
def test_normals_png(format: str, values: Any) -> None:
    normals = np.stack([values, -values, values * 0], axis=-1)
    metadata, image = through(format, NORMALS, normals)
    decoded = np.asarray(image).astype(np.float64) / 127.5 - 1
    assert np.abs(decoded - normals).max() <= 0.5 / 127.5 + 1e-6
    assert metadata["frame"] == "x right, y up, z towards the camera"


@given(ANY_FORMAT, floats(0, 1))
def test_probability_png(format: str, values: Any) -> None:
    metadata, image = through(format, SALIENCY, values)
    assert np.abs(np.asarray(image) / 255 - values).max() <= 0.5 / 255 + 1e-6
    assert metadata["range"] == [0, 1]


def npz(prediction: DenseMaps, visualize: bool = False) -> bytes:
    writer = FORMATS["npz"](POOL, Options(visualize=visualize))
    return writer.finish(writer.add(prediction))


@pytest.mark.parametrize("task", [DEPTH, SALIENCY], ids=lambda task: task.name)
@given(floats(0, 1))
def test_npz_is_exact(task: TaskSpec, values: Any) -> None:
    with np.load(BytesIO(npz(prediction(task, values))), allow_pickle=False) as archive:
        assert archive.files == [task.name, "metadata"]
        assert np.array_equal(archive[task.name], values)
        assert archive[task.name].dtype == np.float32
        metadata = json.loads(str(archive["metadata"]))
    assert "png" not in metadata["maps"][task.name]
    assert metadata["models"] == [
        {"name": "tiny", "version": "7", "width": values.shape[1], "height": values.shape[0]}
    ]


@given(SHAPE.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255]))))
def test_npz_labels_are_exact(values: Any) -> None:
    with np.load(BytesIO(npz(prediction(SEMSEG, values))), allow_pickle=False) as archive:
        assert np.array_equal(archive["semseg"], values)
        assert archive["semseg"].dtype == np.uint8


@given(SHAPE.flatmap(lambda shape: arrays(np.float32, (*shape, 3), elements=st.floats(-1, 1, width=32))))
def test_npz_normals_are_exact(values: Any) -> None:
    with np.load(BytesIO(npz(prediction(NORMALS, values))), allow_pickle=False) as archive:
        assert np.array_equal(archive["normals"], values)


@pytest.mark.parametrize("format", [name for name in PNG_FORMATS if name != "png"])
def test_every_format_resizes_and_times(format: str) -> None:
    answer, found = files(format, prediction(SEMSEG, np.zeros((2, 3), np.uint8), size=(20, 30)))
    assert answer["maps"]["semseg"]["resampled"] == "majority"
    assert (answer["maps"]["semseg"]["width"], answer["maps"]["semseg"]["height"]) == (30, 20)
    assert answer["timings_ms"]["encode"] > 0
    assert Image.open(BytesIO(found["semseg.png"])).size == (30, 20)


@pytest.mark.parametrize("format", PNG_FORMATS)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_visualize_adds_the_picture(format: str, task: TaskSpec) -> None:
    values: Any = np.ones((4, 5, 3), np.float32) if task.kind == "normals" else np.ones((4, 5), np.float32)
    values = values.astype(np.uint8) if task.kind == "labels" else values
    _, found = files(format, prediction(task, values), visualize=True)
    picture = Image.open(BytesIO(found[f"{task.name}.visualization.png"]))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.asarray(task.color(values)))
    assert (f"{task.name}.png" in found) == (format != "png")


def test_visualize_adds_the_picture_to_npz() -> None:
    values = np.linspace(0, 5, 12, dtype=np.float32).reshape(3, 4)
    with np.load(BytesIO(npz(prediction(DEPTH, values), visualize=True))) as archive:
        assert archive.files == ["depth", "depth.visualization", "metadata"]
        assert np.array_equal(archive["depth.visualization"], np.asarray(DEPTH.color(values)))


def test_an_archive_of_arrays_is_what_numpy_writes() -> None:
    cube = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    given = {
        "maps": cube,
        "rows_apart": cube[::2],
        "other_order": cube.T,
        "labels": cube[0].astype(np.uint8),
        "empty": np.zeros((0, 3), np.float16),
        "text": np.array('{"unit": "m²"}'),
    }
    archive = ArrayArchive()
    for name, array in given.items():
        archive.add(name, array)
    written = archive.finish()
    numpys = BytesIO()
    same = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in given.items()}
    np.savez(numpys, allow_pickle=False, **same)
    assert written == numpys.getvalue()
    with ZipFile(BytesIO(written)) as members:
        assert members.testzip() is None
    with np.load(BytesIO(written), allow_pickle=False) as read:
        assert list(read) == list(given)
        for name, array in given.items():
            assert read[name].dtype == array.dtype
            assert np.array_equal(read[name], array)


def test_what_is_made_in_an_archive_is_what_numpy_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_STEP", 7)
    given: dict[str, Any] = {
        "first": np.arange(60, dtype=np.float32).reshape(3, 4, 5),
        "labels": np.arange(7, dtype=np.uint8).reshape(7, 1),
        "last": np.ones((1, 1), np.float32),
    }
    archive = ArrayArchive()
    archive.add("before", given["first"])
    for name, array in given.items():
        archive.reserve(name, array.shape, array.dtype.name)

    def fill(name: str) -> str:
        def make(out: Any) -> str:
            out[:] = given[name]
            return name.upper()

        return archive.fill(name, make)

    assert list(POOL.map(fill, reversed(given))) == ["LAST", "LABELS", "FIRST"]
    archive.add("after", given["labels"])
    numpys = BytesIO()
    np.savez(numpys, allow_pickle=False, before=given["first"], **given, after=given["labels"])
    assert archive.finish() == numpys.getvalue()


@pytest.mark.parametrize("visualize", [False, True])
@pytest.mark.parametrize("size", [(7, 5), (31, 1), (1, 40)])
def test_large_maps_are_made_in_the_archive_and_small_ones_beside_it(
    size: tuple[int, int], visualize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    sure = ConfidenceTask(name="a_confidence", output="a", height=2, width=3, words="right")
    maps = []
    for task in TASKS[:4]:
        channels = (3,) if task is NORMALS else ()
        raw = rng.integers(0, 3, (7, 5)) if task is SEMSEG else rng.random((7, 5, *channels)) + 0.1
        confidence = DenseMap("tiny", sure, rng.random((2, 3), np.float32), *size)
        maps.append(DenseMap("tiny", task, raw.astype(task.array_type), *size, confidence))
    one = replace(prediction(DEPTH, np.ones((7, 5), np.float32), size), maps=tuple(maps))
    found = []
    for large in (10**6, 0):
        monkeypatch.setattr(npz_module, "_LARGE", large)
        writer = FORMATS["npz"](POOL, Options(visualize=visualize, confidence=True))
        described = [writer.add(one, folder).maps for folder in ("0/", "1/")]
        body = writer.finish(PredictOut(models=[], image=describe(one, {}).image, maps={}, timings_ms={}))
        with ZipFile(BytesIO(body)) as members:
            assert members.testzip() is None
            found.append((described, {name: members.read(name) for name in members.namelist()}))
    assert found[0] == found[1]
    assert len(found[0][1]) == 2 * 4 * (3 if visualize else 2) + 1


def test_npz_and_zip_are_stored_not_deflated() -> None:
    found = prediction(SEMSEG, np.zeros((100, 100), np.uint8))
    for format in ("npz", "zip"):
        writer = FORMATS[format](POOL)
        with ZipFile(BytesIO(writer.finish(writer.add(found)))) as archive:
            assert {member.compress_type for member in archive.infolist()} == {ZIP_STORED}


@pytest.mark.parametrize("format", BATCH_FORMATS)
def test_maps_are_encoded_in_parallel(format: str) -> None:
    """Two encoders that wait for each other both come through."""
    meeting = Barrier(2, timeout=10)

    class Meeting(DenseMap):
        def values(self) -> Any:
            meeting.wait()
            return super().values()

    one = prediction(SALIENCY, np.ones((2, 2), np.float32))
    maps = tuple(
        Meeting("tiny", ProbabilityTask(name=name), np.ones((2, 2), np.float32), 4, 4) for name in ("a", "b")
    )
    writer = FORMATS[format](POOL)
    assert set(writer.add(replace(one, maps=maps)).maps) == {"a", "b"}


@pytest.mark.parametrize(
    ("size", "visualize", "here"), [(2, False, True), (4, False, False), (2, True, False)]
)
def test_arrays_that_need_no_work_are_not_handed_to_other_threads(
    size: int, visualize: bool, here: bool
) -> None:
    threads = set()

    class Seen(DenseMap):
        def values(self) -> Any:
            threads.add(get_ident())
            return super().values()

    values = np.ones((2, 2), np.float32)
    found = replace(prediction(SALIENCY, values), maps=(Seen("tiny", SALIENCY, values, size, size),))
    FORMATS["npz"](POOL, Options(visualize=visualize)).add(found)
    assert (threads == {get_ident()}) == here


def test_a_zip_file_needs_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board without a battery says 1970 until it has asked for the time; a ZIP file begins with 1980."""
    monkeypatch.setattr("zipfile.time.localtime", lambda *_: time.gmtime(0))
    _, found = files("zip", prediction(SEMSEG, np.zeros((2, 3), np.uint8)))
    assert list(found) == ["semseg.png"]


@pytest.mark.parametrize("name", ["npz", "zip"])
def test_an_answer_that_is_never_finished_goes_without_a_word(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    with ThreadPoolExecutor(1) as pool:
        writer: Any = FORMATS[name](pool)
        writer._archive.writestr("some", b"member")
        writer._archive.fp.close()  # as the collector may do with what a cancelled request held
        del writer
        gc.collect()
    assert said == []
