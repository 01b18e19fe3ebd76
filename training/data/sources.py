"""Sources by name, and the data set each makes out of its reader and the transforms."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from training.data.cityscapes import CityscapesReader
from training.data.config import AugmentConfig, SourceConfig
from training.data.counts import target_counts
from training.data.errors import SourceError
from training.data.folder import FolderReader
from training.data.maps import map_types
from training.data.nyud import NyudReader
from training.data.pascal import PascalReader
from training.data.paste import Paste
from training.data.reader import Reader
from training.data.sample import Sample, finish
from training.data.scenes.reader import SceneReader
from training.data.transforms import plain_transform, training_transform
from training.label_spaces import IGNORE_LABEL
from training.tasks import Task

ASSUMED_FOV = 60.0
"""Field of view over the longer side, degrees, of an image that nobody says the camera of, as in serving."""

READERS: dict[str, Callable[[SourceConfig, Sequence[Task], tuple[int, int]], Reader]] = {
    "folder": FolderReader,
    "nyud": NyudReader,
    "pascal": PascalReader,
    "cityscapes": CityscapesReader,
    "scenes": SceneReader,
}
"""Kinds of sources; a new one is a file with a :class:`~training.data.reader.Reader` and a line here."""


class Source(Dataset[Sample]):
    """Samples of one reader at the network's size; see :func:`build_source`."""

    def __init__(
        self,
        config: SourceConfig,
        reader: Reader,
        tasks: Sequence[Task],
        size: tuple[int, int],
        augment: AugmentConfig | None,
    ) -> None:
        self.config = config
        self.reader = reader
        self.tasks = tuple(tasks)
        self._counts: dict[str, NDArray[np.int64]] = {}
        self.size = size
        self._types = map_types(tasks)
        self._transform = plain_transform(size) if augment is None else training_transform(size, augment)
        self.paste = Paste(augment.paste, tasks) if augment is not None and augment.paste else None

    def target_counts(self, name: str) -> NDArray[np.int64]:
        """Pixels of each target id in each record's file of the ``labels`` task ``name``, [N, 255].

        Raises:
            LabelError: a label file cannot be used.
        """
        if name not in self._counts:
            self._counts[name] = target_counts([labels.get(name) for labels in self.reader.labels])
        return self._counts[name]

    def class_counts(self, name: str) -> NDArray[np.int64]:
        """The same by class of the source's own space: ids that a context narrowed count as their class."""
        counts = self.target_counts(name)
        space = next(task.space for task in self.tasks if task.name == name)
        assert space is not None
        merged = np.zeros_like(counts)
        np.add.at(merged.T, space.targets.classes[:IGNORE_LABEL], counts.T)
        return merged

    def __len__(self) -> int:
        return len(self.reader.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, seed=index)

    def sample(self, index: int, seed: int) -> Sample:
        """Sample ``index`` with all random choices made by ``seed``; torch's generator is left as it was.

        Raises:
            LabelError: a file of the sample cannot be used.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            record = self.reader.read(index)
            height, width = record["image"].shape[-2:]
            known = self.config.focal or record.get("focal")
            record["focal"] = known or assumed_focal(height, width)
            return finish(self._transform(record), self._types, self.size)


def assumed_focal(height: int, width: int) -> tuple[float, float]:
    """Focal lengths over width and height of an image of square pixels that nobody says the camera of."""
    longer = 0.5 / math.tan(math.radians(ASSUMED_FOV) / 2) * max(height, width)
    return longer / width, longer / height


def build_source(
    config: SourceConfig, tasks: Sequence[Task], size: tuple[int, int], augment: AugmentConfig | None
) -> Source:
    """The data set of one source for a network with ``tasks`` and input ``size`` (H, W).

    Args:
        config: which source.
        tasks: tasks of the network; every sample carries the maps of all of them.
        size: (H, W) of samples.
        augment: random changes for training; None stretches and nothing else, so ``source[i]`` is fixed.

    Raises:
        SourceError: an unknown kind, or a source that cannot be read.
    """
    if config.kind not in READERS:
        raise SourceError(f"unknown kind of source {config.kind!r}; known kinds: {', '.join(READERS)}")
    return Source(config, READERS[config.kind](config, tasks, size), tasks, size, augment)
