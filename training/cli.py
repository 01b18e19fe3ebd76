"""Commands of ``python -m training``.

They are train, evaluate, strip, shift-depth, confidence, plot, sweep, pseudo-label.

Exit statuses are those of all commands (`mtcp_serve.utils.exit_status`): 1 is a run that began and could not
go on, or images of ``pseudo-label`` that failed; 3 a device that is missing. What commands need is imported
in them: ``--help`` needs no torch.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler

from mtcp_serve.utils.atomic import write_atomic
from mtcp_serve.utils.exit_status import ExitStatus
from mtcp_serve.utils.memory import keep_freed
from training.pseudo.cli import pseudo_label
from training.told import told

if TYPE_CHECKING:
    from training.config import RunConfig
    from training.metrics import Report
    from training.trust import Trust

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Train, score and ship networks of many tasks."
)
app.command(name="pseudo-label")(pseudo_label)

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, e.g. epochs=3.")]


def _settle(config: "RunConfig") -> None:
    """On a CPU, keep the memory of a training step for the next."""
    if config.device == "cpu":
        keep_freed()


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
    with told():
        from training.config import load_config
        from training.trainer import Trainer

        settings = load_config(config, overrides or [])
        _settle(settings)
        trainer = Trainer(settings, run or Path("runs") / settings.name)
        trainer.resume()
        trainer.train()


@app.command(name="evaluate")
def evaluate_command(
    path: Annotated[Path, typer.Argument(help="A checkpoint.")],
    overrides: Overrides = None,
    report: Annotated[Path | None, typer.Option(help="Also write the metrics as JSON.")] = None,
    table: Annotated[Path | None, typer.Option(help="Also write the table as Markdown.")] = None,
    single_task: Annotated[
        list[str] | None,
        typer.Option(help="TASK=REPORT.json of a single-task run; with one per task, Delta-MTL is given."),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the IoU of each class.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Score maps that are only resized, their edges not refined.")
    ] = False,
    without_cfm: Annotated[
        bool, typer.Option("--without-cfm", help="Leave out coherence fusion, though trained with it.")
    ] = False,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Only the half that confidence does not calibrate on."),
    ] = False,
    standard_errors: Annotated[
        bool,
        typer.Option("--standard-errors", help="Also how far each metric can be trusted on so many images."),
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Another checkpoint: the differences on the same images, and how sure they are."),
    ] = None,
) -> None:
    """Score a checkpoint on its validation sources, its metrics beside the paper's where they compare."""
    with told():
        from training.evaluate_command import Choices, evaluate
        from training.report import markdown_table, write_json

        choices = Choices(
            tuple(single_task or ()), per_class, plain, without_cfm, held_out, standard_errors, against
        )
        found = evaluate(path, overrides or (), choices, [file for file in (report, table) if file])
        metrics, config = found.metrics, found.config
        _show(path.name, metrics, config, found.delta, found.trust)
        if report is not None:
            write_json(report, metrics, config.name, found.delta, found.trust)
        if table is not None:
            text = markdown_table(metrics, config.name, config.tasks, found.delta, found.trust)
            write_atomic(table, text.encode())


def _show(
    title: str,
    metrics: "Report",
    config: "RunConfig",
    delta: "Mapping[str, float] | None" = None,
    trust: "Trust | None" = None,
) -> None:
    """Print the metrics and, if there are any, the reliability curves."""
    from training.report import reliability_table, terminal_table

    console = Console()
    console.print(terminal_table(title, metrics, config.name, config.tasks, delta, trust))
    curves = reliability_table(metrics)
    if curves.row_count:
        console.print(curves)


@app.command(name="shift-depth")
def shift_depth_command(
    path: Annotated[Path, typer.Argument(help="A checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")],
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(min=1, help="Whole training images to look at.")] = 400,
) -> None:
    """Shift metric depth to where training images have it, and write the weights to ship, in fp16.

    One number of the network changes: the bias of depth's last layer.
    """
    with told():
        from training.checkpoint import load_network, moved, write_shipped
        from training.depth_offset import shift_depth
        from training.distributed import usable_device
        from training.views import training_views

        network, trained = load_network(path)
        config = moved(trained, overrides or ())
        device = usable_device(config.device)
        found = shift_depth(network.to(device), training_views(config, images, None, device))
        write_shipped(network, trained, output)
    Console().print(
        f"depth was {found.bias:+.3f} m off on average in {found.images} images; its bias changed by "
        f"{found.added:+.3f} m: {output}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def confidence(
    path: Annotated[Path, typer.Argument(help="A checkpoint; its network stays as it is.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")],
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(min=1, help="Views of training images to fit on.")] = 400,
    report: Annotated[Path | None, typer.Option(help="Also write the metrics as JSON.")] = None,
) -> None:
    """Add heads that say how sure each map is, and write the weights to ship, in fp16.

    They are fitted on training images, calibrated on half of each validation source and scored on the other.
    """
    with told():
        from training.checkpoint import load_network, moved, write_shipped
        from training.confidence.command import add_confidence
        from training.distributed import usable_device
        from training.report import write_json

        network, trained = load_network(path)
        config = moved(trained, overrides or ())
        if report is not None:
            report.parent.mkdir(parents=True, exist_ok=True)
        confident, metrics = add_confidence(network, config, images, usable_device(config.device))
        write_shipped(confident, trained.model_copy(update={"model": confident.config}), output)
        if report is not None:
            write_json(report, metrics, config.name, None)
        _show(f"{output.name}, held-out half", metrics, config)


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="A run folder, or a report with reliability curves.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="PNG or SVG; by default history.svg in the run folder, or REPORT.svg.",
        ),
    ] = None,
) -> None:
    """Draw losses, task weights and metrics of a run over its epochs, or the curves of a report."""
    with told():
        from training.plot import plot_run
        from training.reliability_plot import plot_reliability

        if run.is_file():
            plot_reliability(run, output or run.with_suffix(".svg"))
        else:
            plot_run(run, output or run / "history.svg")


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="A YAML file or the name of a shipped sweep.")],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where runs and tables go; runs/sweeps/NAME.")
    ] = None,
    limit_minutes: Annotated[
        float | None, typer.Option(help="Stop after this long; the same command goes on.")
    ] = None,
) -> None:
    """Run an experiment of many runs, or what is left of it, and write its tables.

    Exit status 1: it is not finished.
    """
    until = float("inf") if limit_minutes is None else time.monotonic() + 60 * limit_minutes
    with told():
        from training.sweep import load_sweep, run_sweep, write_results

        settings = load_sweep(name)
        folder = output or Path("runs") / "sweeps" / settings.name
        given = tuple(overrides or ())
        first = settings.run_config(next(iter(settings.rows)), settings.seeds[0], given)
        _settle(first)
        done = run_sweep(settings, given, folder, until)
        written = write_results(settings, first.tasks, folder)
    console = Console()
    if written is not None:
        console.print(written.read_text(), highlight=False, soft_wrap=True)
    if not done:
        console.print("Not finished: the same command goes on.")
        raise typer.Exit(ExitStatus.FAILED)


CheckpointPath = Annotated[Path, typer.Argument(help="A checkpoint of a run.")]
Stripped = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
Undo = Annotated[
    list[str] | None,
    typer.Option(
        "--undo-class-weights",
        help="How much of the class weights to take back, 0 to 1; again as TASK=... or TASK/SPACE=... for "
        "a task, or the classes of a label space in it.",
    ),
]


@app.command()
def strip(
    path: CheckpointPath,
    output: Stripped,
    undo: Undo = None,
    weights: Annotated[
        Literal["average", "raw", "better"],
        typer.Option(help="The average where there is one, the raw weights, or what validated better."),
    ] = "average",
) -> None:
    """Keep only the weights to ship, in fp16."""
    with told():
        from training.checkpoint import strip as write
        from training.logit_adjustment import Strengths

        write(path, output, Strengths.parse(undo or ()), weights)


@app.command(deprecated=True)
def slim(path: CheckpointPath, output: Stripped, undo: Undo = None) -> None:
    """The old name of strip."""
    logging.getLogger(__name__).warning("slim is now called strip; the old name goes with the next version")
    strip(path, output, undo)
