"""Shared memory between a client and a Triton on the same host: pixels and maps do not cross the socket."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import shared_memory

from mtcp_serve.bundle.manifest import IMAGE_TENSOR, InputSpec, TaskSpec

_ALIGN = 64
_TYPES: dict[str, type[np.generic]] = {"uint8": np.uint8, "float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class Place:
    """Where a tensor is in a region."""

    offset: int
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def bytes(self) -> int:
        """Its size."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Region:
    """Room for one request at a time: ``batch`` images and their maps.

    Its owner registers `name`, `key` and `size` with Triton. Should this process be killed, Python's resource
    tracker removes the memory.
    """

    def __init__(self, batch: int, size: InputSpec, tasks: Sequence[TaskSpec]) -> None:
        self.batch = batch
        self.places: dict[str, Place] = {}
        end = 0
        pixels = (size.height, size.width)
        for name, shape, dtype in (
            (IMAGE_TENSOR, (*pixels, 3), "uint8"),
            *((task.output, task.output_shape(*pixels), task.dtype) for task in tasks),
        ):
            place = Place(end, (batch, *shape), _TYPES[dtype])
            self.places[name] = place
            end += -(-place.bytes // _ALIGN) * _ALIGN
        self.size = end
        self.name = self.key = f"mtcp-{os.getpid()}-{secrets.token_hex(8)}"
        self._handle: Any = shared_memory.create_shared_memory_region(
            self.name, self.key, end, create_only=True
        )

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Put a tensor into its place."""
        shared_memory.set_shared_memory_region(self._handle, [array], self.places[name].offset)

    def read(self, name: str) -> NDArray[Any]:
        """A copy of a tensor."""
        place = self.places[name]
        view: NDArray[Any] = shared_memory.get_contents_as_numpy(
            self._handle, place.dtype, place.shape, place.offset
        )
        return view.copy()

    def close(self) -> None:
        """Give the memory back; Triton keeps its view of it until it is told to forget the region."""
        shared_memory.destroy_shared_memory_region(self._handle)
