"""What the gateway asks of whatever runs the network."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.manifest import Manifest, TaskSpec
from mtcp_serve.resample import Map


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
        """
        ...
