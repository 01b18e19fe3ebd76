"""What every kind of source provides: records by index, and what is wrong with their files."""

from collections.abc import Sequence
from typing import Protocol

from training.data.encodings import LabelFile
from training.data.errors import LabelError
from training.data.sample import Record


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
