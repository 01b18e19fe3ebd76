"""What every kind of source provides: records by index, and what is wrong with their files."""

from collections.abc import Sequence
from typing import Protocol

from training.data.config import SourceConfig
from training.data.encodings import LabelFile
from training.data.errors import LabelError
from training.data.maps import map_types
from training.data.sample import Record
from training.data.translate import translation
from training.tasks import Task


class Reader(Protocol):
    """A fixed list of photos with the maps they have."""

    @property
    def ids(self) -> Sequence[str]:
        """Name of each record."""
        ...

    @property
    def labels(self) -> Sequence[dict[str, LabelFile]]:
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
    """The maps of the network that a source may have: chosen by ``read`` and not in another label space."""
    other_space = {
        task.name
        for task in tasks
        if task.space is not None
        and (theirs := config.tasks.get(task.name, task.space.name)) != task.space.name
        and not (config.translate and translation(theirs, task.space.name) is not None)
    }
    chosen = map_types(tasks) if config.read is None else config.read
    return [name for name in map_types(tasks) if name in chosen and name not in other_space]
