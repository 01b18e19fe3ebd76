"""A tiny bundle whose maps are simple functions of the image, so that answers can be checked exactly.

``semseg`` is the mean of the channels in three steps, ``depth`` the mean / 25.5 (metres), ``normals`` the
direction of ``rgb / 127.5 - 1``, ``saliency`` red / 255, ``parsing`` 1 where blue is at least 128. An image
whose first pixel is pure green (0, 255, 0) keeps the model busy until it is stopped, one whose first pixel is
pure magenta (255, 0, 255) for a second or so.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.bundle.manifest import (
    DepthTask,
    FileEntry,
    InputSpec,
    LabelsTask,
    Manifest,
    NormalsTask,
    ProbabilityTask,
    TaskSpec,
)

HEIGHT, WIDTH = 24, 32

GRAPH = f"""
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[batch, {HEIGHT}, {WIDTH}, 3] image) => (
    uint8[batch, {HEIGHT}, {WIDTH}] semseg, float[batch, {HEIGHT}, {WIDTH}] depth_metres,
    float[batch, {HEIGHT}, {WIDTH}, 3] normals, float[batch, {HEIGHT}, {WIDTH}] saliency,
    uint8[batch, {HEIGHT}, {WIDTH}] parsing)
<int64[1] last = {{3}}, int64[3] one_each = {{1, 1, 1}}, float low = {{85}}, float high = {{170}},
 float per_metre = {{25.5}}, float half = {{127.5}}, float one = {{1}}, float whole = {{255}},
 float middle = {{128}}, float tiny_length = {{0.001}}, int64 forever = {{1000000000}},
 int64[4] first_pixel = {{0, 0, 0, 0}}, int64[4] first_pixel_end = {{1, 1, 1, 3}},
 float[3] green = {{0, 255, 0}}, float[3] magenta = {{255, 0, 255}}, int64 a_while = {{40000}},
 int64[2] square = {{64, 64}}>
{{
    pixels = Cast <to = 1> (image)
    mean = ReduceMean <keepdims = 0> (pixels, last)
    red3, green3, blue3 = Split <axis = 3> (pixels, one_each)
    red = Squeeze (red3, last)
    blue = Squeeze (blue3, last)

    above_low = GreaterOrEqual (mean, low)
    above_high = GreaterOrEqual (mean, high)
    low_step = Cast <to = 2> (above_low)
    high_step = Cast <to = 2> (above_high)
    semseg = Add (low_step, high_step)

    saliency = Div (red, whole)
    is_blue = GreaterOrEqual (blue, middle)
    parsing = Cast <to = 2> (is_blue)

    scaled = Div (pixels, half)
    direction = Sub (scaled, one)
    length = ReduceL2 <keepdims = 1> (direction, last)
    safe_length = Max (length, tiny_length)
    normals = Div (direction, safe_length)

    corner = Slice (pixels, first_pixel, first_pixel_end)
    same = Equal (corner, green)
    same_float = Cast <to = 1> (same)
    all_same = ReduceMin <keepdims = 0> (same_float)
    stuck = Cast <to = 7> (all_same)
    stuck_rounds = Mul (stuck, forever)
    same_slow = Equal (corner, magenta)
    same_slow_float = Cast <to = 1> (same_slow)
    all_same_slow = ReduceMin <keepdims = 0> (same_slow_float)
    slow = Cast <to = 7> (all_same_slow)
    slow_rounds = Mul (slow, a_while)
    rounds = Add (stuck_rounds, slow_rounds)
    yes = Cast <to = 9> (one)
    ones = ConstantOfShape <value = float[1] {{1}}> (square)
    work = Loop (rounds, yes, ones) <body = spin (int64 i, bool go, float[64, 64] state) => (
        bool go_on, float[64, 64] next) {{
            go_on = Identity (go)
            product = MatMul (state, state)
            next = Clip (product, one, one)
        }}>
    used = ReduceMax <keepdims = 0> (work)
    metres = Div (mean, per_metre)
    depth_metres = Mul (metres, used)
}}
"""

TASKS: tuple[TaskSpec, ...] = (
    LabelsTask(
        name="semseg",
        dataset="steps",
        labels=("dark", "medium", "bright"),
        palette=("#102030", "#808080", "#f0e0d0"),
    ),
    DepthTask(name="depth", output="depth_metres", range=(0.1, 10.0), trained_on="grey levels"),
    NormalsTask(name="normals", frame="x right, y up, z towards the camera"),
    ProbabilityTask(name="saliency"),
    LabelsTask(name="parsing", dataset="blueness", labels=("other", "blue"), palette=("#000000", "#0000ff")),
)


def make_bundle(folder: Path, graph: str = GRAPH, tasks: tuple[TaskSpec, ...] = TASKS) -> Path:
    """Write a bundle of ``graph`` and a manifest of ``tasks`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.parser.parse_model(graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    Manifest(
        name="tiny",
        version="7",
        input=InputSpec(height=HEIGHT, width=WIDTH),
        tasks=tasks,
        files={"model.onnx": FileEntry.of(folder / "model.onnx", opset=18)},
        parameters=4096,
        license="Apache-2.0",
    ).save(folder)
    return folder


def put_weights_apart(folder: Path, location: str, listed: bool = True) -> Path:
    """Move a weight of the graph, on which depth depends, from ``model.onnx`` to the file ``location``.

    The manifest has the new hash of the graph, and that of the file if it is ``listed``. The file's path.
    """
    model = onnx.load(folder / "model.onnx")
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "per_metre")
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    (folder / location).write_bytes(values.tobytes())
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    files = {"model.onnx": FileEntry.of(folder / "model.onnx", opset=18)}
    if listed:
        files[location] = FileEntry.of(folder / location)
    Manifest.load(folder).model_copy(update={"files": files}).save(folder)
    return folder / location


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A reproducible random image."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(pixels: NDArray[np.uint8] | Image.Image, format: str = "PNG", **options: object) -> bytes:
    """``pixels`` as an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


STUCK = encode(np.broadcast_to(np.array([0, 255, 0], np.uint8), (HEIGHT, WIDTH, 3)).copy())
"""An image for which the model never ends by itself."""
SLOW = encode(np.broadcast_to(np.array([255, 0, 255], np.uint8), (HEIGHT, WIDTH, 3)).copy())
"""An image that takes the model a while."""
GOOD = encode(noise(HEIGHT, WIDTH))
"""An image of the model's own size, so that no resizing stands between it and its maps."""
