"""One inference request of the protocol, whichever transport it came by."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import IMAGE_TENSOR, Manifest, TaskSpec
from mtcp_serve.errors import (
    InvalidBodyError,
    InvalidParameterError,
    TooManyImagesError,
    UnknownTaskError,
    UnsupportedError,
)
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.camera import Camera, CameraError, CameraRequest, find_camera
from mtcp_serve.inference.pipeline import assumed_fov
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds.base import Map
from mtcp_serve.utils.concurrency import together

HINT = "GET /v2/models/NAME says what the model takes and gives"
"""What to do about a body that is not what the protocol or the model wants."""
_CAMERA_HINT = (
    "give one of fov_x (degrees), focal_px (pixels) and intrinsics (fx,fy,cx,cy in pixels), or none"
)


@dataclass(frozen=True)
class Tensor:
    """An input as the request describes it; ``read`` gives its elements in a flat array."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[np.uint8]]


_UNSUPPORTED = {
    "classification": "classification: the maps themselves are the answer",
    "shared_memory_region": "shared memory: send and take the tensors in the message",
    "sequence_id": "sequences: the model keeps no state",
}


def check_parameters(*groups: Iterable[str]) -> None:
    """Refuse parameters of a request, its inputs or outputs that would change the response.

    Others, such as Triton's ``priority`` and ``timeout``, change nothing and are let pass.

    Raises:
        UnsupportedError: there is one; the message names it.
    """
    for names in groups:
        for name in names:
            if name in _UNSUPPORTED:
                raise UnsupportedError(f"{name}: there is no {_UNSUPPORTED[name]}", "leave the parameter out")


def camera_of(parameters: Mapping[str, object], model: Manifest) -> Camera:
    """The camera of the images of a request: by its parameters, or else by the manifest.

    ``fov_x``, ``focal_px`` and ``intrinsics`` mean what they mean in ``POST /predict``
    (`mtcp_serve.inference.camera.CameraRequest`); pixels are those of the image as it is sent. Numbers may be
    text, since not every client sends fractions.

    Raises:
        InvalidParameterError: more than one is given, or one is not what it should be.
    """
    given: dict[str, float] = {}
    for name in ("fov_x", "focal_px"):
        value = parameters.get(name)
        if value is None:
            continue
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            given[name] = float(value)
        except ValueError:
            raise InvalidParameterError(f"{name} is {value!r}, not a number", _CAMERA_HINT) from None
    intrinsics = parameters.get("intrinsics")
    if intrinsics is not None and not isinstance(intrinsics, str):
        raise InvalidParameterError(f"intrinsics are {intrinsics!r}, not text fx,fy,cx,cy", _CAMERA_HINT)
    try:
        request = CameraRequest.parse(given.get("fov_x"), given.get("focal_px"), intrinsics)
    except CameraError as error:
        raise InvalidParameterError(str(error), _CAMERA_HINT) from error
    return find_camera(model.input.width, model.input.height, request, None, assumed_fov([model]))


def say_camera(camera: Camera) -> dict[str, str]:
    """The parameters of a response that say which camera was taken, and who said it."""
    numbers = (camera.fx, camera.fy, camera.cx, camera.cy)
    return {"intrinsics": ",".join(f"{value:.3f}" for value in numbers), "camera_source": camera.source}


def images_of(batcher: Batcher, inputs: Sequence[Tensor], limit: int) -> NDArray[np.uint8]:
    """The images (``[batch, height, width, 3]``) in the inputs of a request, at most ``limit``.

    Raises:
        InvalidBodyError: not exactly one input ``image`` of the model's type and size, or not its bytes.
        TooManyImagesError: there are more than ``limit``.
    """
    size = batcher.engine.manifest.input
    wanted = (size.height, size.width, 3)
    if [tensor.name for tensor in inputs] != [IMAGE_TENSOR]:
        found = ", ".join(tensor.name for tensor in inputs) or "none"
        raise InvalidBodyError(f"the model takes one input {IMAGE_TENSOR!r}; the request has {found}", HINT)
    (tensor,) = inputs
    count, *rest = tensor.shape or (0,)
    if tensor.datatype != "UINT8" or tuple(rest) != wanted or count < 1:
        raise InvalidBodyError(
            f"{IMAGE_TENSOR} must be UINT8 [batch, {', '.join(map(str, wanted))}]; "
            f"this is {tensor.datatype} {list(tensor.shape)}",
            HINT,
        )
    if count > limit:
        raise TooManyImagesError(f"the request has {count} images, the limit is {limit}")
    flat = tensor.read()
    if flat.size != np.prod(tensor.shape):
        raise InvalidBodyError(
            f"{IMAGE_TENSOR} has {flat.size} elements, its shape needs {np.prod(tensor.shape)}", HINT
        )
    return flat.reshape(tensor.shape)


def tasks_of(batcher: Batcher, outputs: Sequence[str]) -> list[TaskSpec]:
    """The tasks and confidences whose outputs are asked for; all tasks for an empty list.

    Raises:
        UnknownTaskError: the model has no such output.
    """
    manifest = batcher.engine.manifest
    tasks = {task.output: task for task in manifest.outputs}
    for name in outputs:
        if name not in tasks:
            raise UnknownTaskError(f"the model has no output {name!r}; it has {', '.join(tasks)}", HINT)
    return [tasks[name] for name in dict.fromkeys(outputs)] or list(manifest.tasks)


async def infer(
    batcher: Batcher, images: NDArray[np.uint8], tasks: Sequence[TaskSpec], timings: Sequence[Timings]
) -> list[Map]:
    """The maps of ``tasks``, ``[batch, ...]``; the time of each image goes into its ``timings``.

    Raises:
        InternalError: the model gave values that a task cannot have.
    """
    rows = await together(
        batcher.infer(image, tasks, times) for image, times in zip(images, timings, strict=True)
    )
    maps = [np.stack(column) for column in zip(*rows, strict=True)]
    for task, values in zip(tasks, maps, strict=True):
        task.check(values)
    return maps
