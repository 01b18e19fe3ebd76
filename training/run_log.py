"""What a run writes down: ``history.csv`` with one row an epoch, and TensorBoard's event files."""

import csv
import logging
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from mtcp_serve.utils.atomic import write_atomic

log = logging.getLogger(__name__)

HISTORY = "history.csv"


class HistoryError(ValueError):
    """A ``history.csv`` that was damaged; names the line and what to do."""


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``history.csv``, one an epoch, as text; none if there is no file yet.

    Raises:
        HistoryError: a line is not what a run writes.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = csv.reader(file)
        try:
            columns = next(lines, ["epoch"])
            if "epoch" not in columns:
                raise ValueError("there is no column epoch")
            return [_row(columns, cells) for cells in lines if cells]
        except (ValueError, csv.Error) as error:
            raise HistoryError(
                f"{path}, line {lines.line_num}: {error}; mend or remove the line, or move the file away: "
                "a resumed run then begins a new one"
            ) from error


def _row(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells under {len(columns)} columns")
    row = dict(zip(columns, cells, strict=True))
    int(row["epoch"])
    for cell in filter(None, cells):
        float(cell)
    return row


def shown(row: Mapping[str, Any]) -> str:
    """A row as a line of a log, numbers with four digits."""
    cells = ((key, f"{value:.4g}" if isinstance(value, float) else value) for key, value in row.items())
    return ", ".join(f"{key} {value}" for key, value in cells if key != "epoch")


class History:
    """The records of the run in the folder ``run``; a resumed run overwrites the epochs it does again.

    Raises:
        HistoryError: those that the run has already are damaged.
    """

    def __init__(self, run: Path, tensorboard: bool) -> None:
        self.run = run
        read_history(run / HISTORY)  # an epoch is not trained in order to find that out
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
        table = StringIO(newline="")
        writer = csv.DictWriter(table, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, table.getvalue().encode())
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
