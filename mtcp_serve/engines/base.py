"""What the gateway asks of whatever runs the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import Manifest, TaskSpec
from mtcp_serve.kinds.base import Map

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
"""Where an engine in this process runs the network; ``auto`` is CUDA where that can be started."""
Precision = Literal["auto", "fp32", "bf16"]
"""What an engine in this process computes in; ``auto`` is the engine's choice."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine in this process is to run; one refuses with a `BundleError` what it does not have."""

    provider: Provider = "auto"
    threads: int = 0
    """CPU threads for one inference; 0 is the engine's choice."""
    precision: Precision = "auto"
    streams: int = 0
    """Inferences at the same time; 0 is the engine's choice."""


DEFAULT_OPTIONS: Final = EngineOptions()


class Availability(NamedTuple):
    """Whether an engine can run on a device of this machine."""

    device: str
    """A word such as ``cpu``, ``cuda``."""
    problem: str | None
    """Why not; None if it can."""


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

        ``tasks`` are any of `Manifest.outputs`: a confidence is asked for like a map. What comes is
        ``[batch, *task.output_shape(height, width)]``, of the task's ``array_type`` whatever the graph's own
        types (`TaskSpec.to_map` does that). Cancelling the call stops the inference.

        Raises:
            VersionLostError: whatever runs the network has the model's version no longer.
            EngineLostError: it cannot be reached.
            OverloadedError: whatever runs the network has too much to do.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and of the model, whoever keeps the engine; no `infer` comes after."""
        ...
