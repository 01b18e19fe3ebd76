"""What a prediction is to a client: arrays by task name, and what the manifest says of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from clients._photos import Photo
from mtcp_serve.bundle.manifest import Manifest, TaskSpec

Map = NDArray[Any]
"""uint8 labels or float32 values, ``[height, width]``; normals ``[height, width, 3]``."""


@dataclass(frozen=True, eq=False)
class Maps(Mapping[str, Map]):
    """The maps of one photo at model size: ``maps["depth"]`` is an array."""

    manifest: Manifest
    """Of the model version that answered."""
    version: str
    """Triton's number of it."""
    arrays: Mapping[str, Map]

    def task(self, name: str) -> TaskSpec:
        """What the manifest says of a map: its kind, labels and colours, unit, range, frame."""
        return next(task for task in self.manifest.tasks if task.name == name)

    def __getitem__(self, name: str) -> Map:
        """The map of task ``name``."""
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        """The tasks' names, in the manifest's order."""
        return iter(self.arrays)

    def __len__(self) -> int:
        """How many maps there are."""
        return len(self.arrays)


@dataclass(frozen=True)
class Outcome:
    """What became of one photo of a stream: its ``maps``, unless ``error`` says why not."""

    photo: Photo
    maps: Maps | None
    error: Exception | None
