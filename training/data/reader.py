"""What every kind of source provides: records by index, and what is wrong with their files."""

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from training.data.config import SourceConfig
from training.data.encodings import MapFile
from training.data.errors import LabelError, SourceError
from training.data.maps import map_types
from training.data.sample import Record
from training.label_spaces import Part, plain_name
from training.tasks import Task

log = logging.getLogger(__name__)


class Reader(Protocol):
    """A fixed list of images with the maps they have."""

    @property
    def ids(self) -> Sequence[str]:
        """Name of each record."""
        ...

    @property
    def labels(self) -> Sequence[dict[str, MapFile]]:
        """The label files of each record by map name; empty when they are computed."""
        ...

    def read(self, index: int) -> Record:
        """Record ``index``, maps at their own resolution.

        Raises:
            LabelError: a file of the record cannot be used.
        """
        ...

    def problems(self, index: int) -> list[LabelError]:
        """Every file of record ``index`` that cannot be used."""
        ...


def maps_to_read(config: SourceConfig, tasks: Sequence[Task]) -> list[str]:
    """The maps of the network that a source may have: chosen by ``read``, in spaces that it understands."""
    chosen = map_types(tasks) if config.read is None else config.read
    foreign = set()
    for task in tasks:
        if task.space is None or task.name not in chosen:
            continue
        theirs = plain_name(config.tasks.get(task.name, task.space.name))
        if theirs not in task.space.targets.parts:
            foreign.add(task.name)
            log.warning(
                "source %r: its %s is not read, for the network's label space %r has no mapping from %r",
                config.label,
                task.name,
                task.space.name,
                theirs,
            )
    return [name for name in map_types(tasks) if name in chosen and name not in foreign]


def native(config: SourceConfig, spaces: Mapping[str, str]) -> SourceConfig:
    """``config`` of a published data set, with its label spaces filled in.

    Raises:
        SourceError: ``tasks`` names another label space than the data set's.
    """
    for name, space in config.tasks.items():
        if spaces.get(name) != space:
            raise SourceError(
                f"source {config.label!r} of kind {config.kind!r} has {name} in "
                f"{spaces.get(name, 'no space')}, not in {space}; leave it out of tasks"
            )
    return config.model_copy(update={"tasks": dict(spaces)})


def label_part(name: str, theirs: str | None, tasks: Sequence[Task]) -> Part | None:
    """What class ids of space ``theirs`` mean to the task ``name``; None where they are its own."""
    space = next((task.space for task in tasks if task.name == name), None)
    if space is None or theirs is None or plain_name(theirs) == space.name:
        return None
    return space.targets.parts[plain_name(theirs)]
