"""What a run writes down: ``history.csv`` with one row an epoch, and TensorBoard's event files."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

HISTORY = "history.csv"


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``history.csv``, one an epoch, as text; none if there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class History:
    """The records of the run in the folder ``run``; a resumed run overwrites the epochs it does again."""

    def __init__(self, run: Path, tensorboard: bool) -> None:
        self.run = run
        self._writer = _writer(run / "tensorboard") if tensorboard else None

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Points of one step, in TensorBoard only."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"step/{name}", value, step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Append to ``history.csv``; columns that first appear now are added to the file."""
        path = self.run / HISTORY
        rows = [old for old in read_history(path) if int(old["epoch"]) < row["epoch"]] + [dict(row)]
        columns = list(dict.fromkeys(key for entry in rows for key in entry))
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(path)
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("TensorBoard is not installed; this run writes %s only", HISTORY)
        return None
    return SummaryWriter(str(folder))
