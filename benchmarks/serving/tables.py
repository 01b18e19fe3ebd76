"""The report of ``python -m benchmarks.serving`` for people."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_FIGURES = ("p50", "p90", "p95", "p99", "answers", "per_s", "bytes")
_WIDTH = 160  # of a file, in characters


def print_report(report: dict[str, Any]) -> None:
    """Everything that was measured, as tables."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    loads = {
        **{(name, "one at a time"): row for name, row in report["one_at_a_time"].items()},
        **{
            (name, f"{count} clients"): row
            for name, rows in report["closed_loop"].items()
            for count, row in rows.items()
        },
        **{
            ("PNG, image size", f"{share} of capacity, {row['sent_per_s']}/s"): row
            for share, row in report["open_loop"].items()
        },
    }
    console.print(_loads(loads))
    console.print(grid("Over the engine", report["headline"]))
    for size in report["bytes"]:
        console.print(grid(f"Milliseconds to encode, {size} size", report["encode_ms"][size]))
    console.print(grid("Bytes of an answer", report["bytes"], turned=True))
    for key in ("machine", "model", "image", "start_to_ready_s", "resident_mb"):
        value = report[key]
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        console.print(f"{key}: {text}", markup=False, soft_wrap=True)


def _loads(rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> Table:
    table = Table(title="Milliseconds, responses per second, bytes per response")
    for name in ("layer", "load"):
        table.add_column(name)
    for name in (*_FIGURES, "statuses"):
        table.add_column(name, justify="right")
    for (layer, load), row in rows.items():
        met = ", ".join(f"{key}: {count}" for key, count in {**row["statuses"], **row["errors"]}.items())
        table.add_row(layer, load, *(str(row[name]) for name in _FIGURES), met)
    return table


def grid(title: str, rows: Mapping[str, Mapping[str, object]], turned: bool = False) -> Table:
    """A table of a dictionary of dictionaries; ``turned`` puts the outer keys across."""
    if turned:
        inner = next(iter(rows.values()))
        rows = {name: {key: row[name] for key, row in rows.items()} for name in inner}
    table = Table("", title=title)
    for name in next(iter(rows.values())):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        table.add_row(name, *map(str, row.values()))
    return table
