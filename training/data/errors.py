"""What can be wrong with training data.

DataError (ValueError)
├── SourceError        a folder, split file, image or setting of a source
├── LabelError         one label file or image that cannot be used
└── BrokenLabelsError  every such file of a set of sources
"""

from collections.abc import Sequence
from pathlib import Path


class DataError(ValueError):
    """Base of everything this package raises about the data it is given."""


class SourceError(DataError):
    """A source cannot be built; the message names the path and says what to do."""


class LabelError(DataError):
    """The file at ``path`` cannot be used because of ``why``."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class BrokenLabelsError(DataError):
    """Files of the training data that cannot be used, all of them in ``errors``."""

    SHOWN = 20
    """Files listed by name in the message."""

    def __init__(self, errors: Sequence[LabelError]) -> None:
        super().__init__(errors)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        lines = [f"{len(self.errors)} file(s) of the training data cannot be used:"]
        lines += [f"  {error}" for error in self.errors[: self.SHOWN]]
        if len(self.errors) > self.SHOWN:
            lines.append(f"  ... and {len(self.errors) - self.SHOWN} more")
        return "\n".join(lines)
