"""Commands of ``python -m training``: train, evaluate, slim."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from training import checkpoint
from training.checkpoint import CheckpointError
from training.config import ConfigError, load_config, override
from training.data import DataError
from training.evaluation import Report, evaluate, validation_sources
from training.model.pretrained import WeightsError
from training.trainer import Trainer, TrainingError

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, e.g. epochs=3.")]


def _fail(error: Exception) -> typer.Exit:
    Console(stderr=True).print(f"[red]error:[/red] {error}", soft_wrap=True, highlight=False)
    return typer.Exit(2)


@app.callback()
def _setup() -> None:
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file or the name of a shipped config.")],
    overrides: Overrides = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; resumed if it has a checkpoint.")] = None,
) -> None:
    """Train a network; run again with the same folder to resume."""
    try:
        settings = load_config(config, overrides or [])
        trainer = Trainer(settings, run or Path("runs") / settings.name)
        trainer.resume()
        trainer.train()
    except (ConfigError, DataError, WeightsError, CheckpointError, TrainingError) as error:
        raise _fail(error) from error


@app.command(name="evaluate")
def evaluate_command(
    path: Annotated[Path, typer.Argument(help="A checkpoint.")],
    overrides: Overrides = None,
    report: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    """Score a checkpoint on its validation sources."""
    try:
        network, config = checkpoint.load_network(path)
        if overrides:
            config = override(config, overrides)
        sources = validation_sources(config.data, config.tasks)
        figures = evaluate(network.to(config.device), sources, config.data.batch_size, config.device)
    except (ConfigError, DataError, CheckpointError) as error:
        raise _fail(error) from error
    Console().print(_table(path.name, figures))
    if report is not None:
        report.write_text(json.dumps(figures, indent=1) + "\n")


@app.command()
def slim(
    path: Annotated[Path, typer.Argument(help="A checkpoint of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")],
    undo: Annotated[
        float,
        typer.Option("--undo-class-weights", help="How much of the class weights to take back, 0 to 1."),
    ] = 0.0,
) -> None:
    """Keep only the weights to ship, in fp16."""
    try:
        checkpoint.slim(path, output, undo)
    except (ConfigError, CheckpointError) as error:
        raise _fail(error) from error


def _table(title: str, figures: Report) -> Table:
    table = Table("task", "metric", "value", title=title)
    for task, values in figures.items():
        for metric, value in values.items():
            table.add_row(task, metric, f"{value:.4f}")
    return table
