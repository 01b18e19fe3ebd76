"""Shared memory between a client and a Triton on the same host: pixels and maps do not cross the socket."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal
from tritonclient.utils import shared_memory

from mtcp_serve.bundle.manifest import IMAGE_TENSOR, InputSpec, TaskSpec
from mtcp_serve.clients.errors import ClientError

_ALIGN = 64
_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux has it
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

    Raises:
        ClientError: there is no room for it.
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
        self._process = os.getpid()
        self.name = self.key = f"mtcp-{self._process}-{secrets.token_hex(8)}"
        self._handle: Any = shared_memory.create_shared_memory_region(
            self.name, self.key, end, create_only=True
        )
        try:
            self._reserve()
        except BaseException:
            self.close()
            raise

    @property
    def own(self) -> bool:
        """Whether this process made it, and not the one that it was forked from."""
        return self._process == os.getpid()

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

    def _reserve(self) -> None:
        """Take the memory now: without room, the first write to it would end the process (SIGBUS)."""
        if not _FOLDER.is_dir():  # not Linux
            return
        file = os.open(_FOLDER / self.key, os.O_RDWR)
        try:
            os.posix_fallocate(file, 0, self.size)
        except OSError as error:
            raise ClientError(
                f"no room for {decimal(self.size)} in {_FOLDER}: {error.strerror or error}",
                hint="give a container more with --shm-size or --ipc=host, send fewer images at a time, or "
                "leave shared_memory out",
            ) from error
        finally:
            os.close(file)
