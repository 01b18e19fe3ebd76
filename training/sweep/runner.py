"""Running a sweep: seed by seed, so that a grid cut short is complete for the seeds before."""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtcp_serve.utils.atomic import write_atomic
from training import checkpoint
from training.config import ConfigError, RunConfig, override
from training.evaluation import Validation, validation_sources
from training.parts import check_settings
from training.resuming import differences
from training.sweep.config import SweepConfig, slug
from training.trainer import LAST, Trainer

log = logging.getLogger(__name__)

REPORT = "report.json"
STRIPPED = "stripped.pt"


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its row, seed and folder."""

    row: str
    seed: int
    folder: Path

    def report(self) -> dict[str, Any] | None:
        """What the finished run reported: `checkpoint.described`, ``val``, ``test``; None before that."""
        path = self.folder / REPORT
        return json.loads(path.read_text()) if path.exists() else None


def runs(sweep: SweepConfig, output: Path) -> Iterator[Run]:
    """All runs in order: every row with the first seed, then every row with the next."""
    for seed in sweep.seeds:
        for row in sweep.rows:
            yield Run(row, seed, output / slug(row) / f"seed{seed}")


def run_sweep(
    sweep: SweepConfig, overrides: tuple[str, ...], output: Path, until: float = float("inf")
) -> bool:
    """Run what is not finished; whether all is, when ``until`` (``time.monotonic()``) cuts it short.

    A finished run leaves its history, report and stripped weights; one that was cut resumes.

    Raises:
        ConfigError: a row has a wrong setting (all are checked before the first run), asks for several
            devices, or a finished run had other settings.
    """
    planned = [(run, sweep.run_config(run.row, run.seed, overrides)) for run in runs(sweep, output)]
    for run, config in planned:
        _check(run, config)
    checked: list[RunConfig] = []
    for number, (run, config) in enumerate(planned, start=1):
        if run.report() is not None:
            continue
        if time.monotonic() > until:
            return False
        log.info("run %d of %d: %s, seed %d", number, len(planned), run.row, run.seed)
        known = any(config.data == done.data and {*config.tasks} <= {*done.tasks} for done in checked)
        if not _finish(run, config, sweep.test, until, check=not known):
            return False
        checked.append(config)
    return True


def _check(run: Run, config: RunConfig) -> None:
    if config.devices != 1:
        raise ConfigError("a sweep runs its rows one after another on one device; leave devices at 1")
    try:
        check_settings(config)
    except ConfigError as error:
        raise ConfigError(f"row {run.row!r}: {error}") from error
    report = run.report()
    if report is None:
        return
    before = checkpoint.settings(run.folder / REPORT, report)
    if different := differences(before, config, strict=("epochs", "minutes")):
        raise ConfigError(
            f"{run.folder} holds a finished run with other settings ({'; '.join(different)}); choose another "
            "--output or remove it"
        )


def _finish(run: Run, config: RunConfig, test: tuple[str, ...], until: float, check: bool) -> bool:
    trainer = Trainer(config, run.folder, check=check)
    trainer.resume()
    if not trainer.train(until):
        return False
    report: dict[str, Any] = {
        **checkpoint.described(config),
        "val": trainer.validate()[trainer.shipped],
    }
    if test:
        data = override(config, test).data
        sources = validation_sources(data, config.tasks, check=check)
        validation = Validation(sources, data.batch_size, config.device)
        report |= validation.score({"test": trainer.best})
    checkpoint.strip(run.folder / LAST, run.folder / STRIPPED)
    write_atomic(run.folder / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    (run.folder / LAST).unlink()
    return True
