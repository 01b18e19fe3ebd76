"""What the gateway asks of whatever runs the network."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import LabelsTask, Manifest, TaskSpec
from mtcp_serve.kinds.base import Map

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
"""Where an engine in this process runs the network; ``auto`` is CUDA where that can be started."""


class Engine(Protocol):
    """Runs the network of one bundle."""

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest, checked against the graph."""
        ...

    @property
    def device(self) -> str:
        """Where the network runs, in a word: ``cpu``, ``cuda``, ``tensorrt``, ``triton``."""
        ...

    @property
    def parallel(self) -> int:
        """How many calls of `infer` at the same time make it faster; at least 1."""
        ...

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        """The maps of ``tasks``, in their order, for ``images`` (uint8 RGB ``[batch, height, width, 3]``).

        Labels are uint8 ``[batch, height, width]``, every other map is float32 (normals with a last axis of
        3), whatever the graph's own types. Cancelling the call stops the inference.

        Raises:
            EngineLostError: whatever runs the network cannot be reached.
            OverloadedError: whatever runs the network has too much to do.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; no `infer` comes after."""
        ...


def common_type(task: TaskSpec, array: NDArray[np.generic]) -> Map:
    """``array`` as uint8 labels or float32 values; a uint8 probability comes back to 0 to 1."""
    if isinstance(task, LabelsTask):
        return array.astype(np.uint8, copy=False)
    values = array.astype(np.float32, copy=False)
    return values / np.float32(255) if array.dtype == np.uint8 else values
