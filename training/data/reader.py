"""What every kind of source provides: records by index, and what is wrong with their files."""

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from training.data.config import SourceConfig
from training.data.encodings import MapFile
from training.data.errors import LabelError, SourceError
from training.data.maps import map_types
from training.data.sample import Record
from training.label_spaces import LabelSpaceError, Part, plain_name
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
    """The maps of the network that a source may have: chosen by ``read``, in spaces that it understands.

    Raises:
        SourceError: as `source_part`.
    """
    chosen = map_types(tasks) if config.read is None else config.read
    foreign = set()
    for task in tasks:
        if task.space is None or task.name not in chosen:
            continue
        if source_part(config, task) is None:
            foreign.add(task.name)
            log.warning(
                "source %r: its %s is not read, for the network's label space %r has no mapping from %r",
                config.label,
                task.name,
                task.space.name,
                plain_name(config.tasks[task.name]),
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


def source_part(config: SourceConfig, task: Task) -> Part | None:
    """The targets of the space that a source labels the ``labels`` task in; None: the network has no such.

    Raises:
        SourceError: the network knows a space of that name, but with other labels; or it cannot be used.
    """
    assert task.space is not None
    ours = task.space
    if task.name not in config.tasks:
        return ours.targets.parts[ours.name]
    try:
        theirs = config.space_of(task.name)
    except LabelSpaceError as error:
        raise SourceError(f"source {config.label!r}: {error}") from error
    part = ours.targets.parts.get(theirs.name)
    if part is not None and part.labels != theirs.labels:
        known = ours.file if theirs.name == ours.name else f"the {theirs.name} that {ours.file} maps"
        raise SourceError(
            f"source {config.label!r}: {theirs.file} has other labels than {known}; files of one name count "
            "as one label space: make their labels the same, or give one of them another name"
        )
    return part


def label_part(config: SourceConfig, name: str, tasks: Sequence[Task]) -> Part | None:
    """What class ids in the source's files of map ``name`` mean; None where they are the network's own."""
    task = next((task for task in tasks if task.name == name and task.space is not None), None)
    if task is None or task.space is None:
        return None
    part = source_part(config, task)
    return None if part is task.space.targets.parts[task.space.name] else part
