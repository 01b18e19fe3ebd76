"""One inference request of the protocol, whichever transport it came by."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import IMAGE_TENSOR, TaskSpec
from mtcp_serve.errors import InvalidBodyError, TooManyImagesError, UnknownTaskError, UnsupportedError
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds.base import Map
from mtcp_serve.utils.concurrency import together

HINT = "GET /v2/models/NAME says what the model takes and gives"
"""What to do about a body that is not what the protocol or the model wants."""


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
    """The tasks whose outputs are asked for; all for an empty list.

    Raises:
        UnknownTaskError: the model has no such output.
    """
    tasks = {task.output: task for task in batcher.engine.manifest.tasks}
    for name in outputs:
        if name not in tasks:
            raise UnknownTaskError(f"the model has no output {name!r}; it has {', '.join(tasks)}", HINT)
    return [tasks[name] for name in dict.fromkeys(outputs)] or list(tasks.values())


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
