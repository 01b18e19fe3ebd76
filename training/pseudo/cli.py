"""``python -m training pseudo-label``."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from mtcp_serve.utils.exit_status import ExitStatus
from training.told import told


def pseudo_label(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, or the model.onnx in it.")],
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the partial-label folder goes.")],
    tasks: Annotated[
        str | None, typer.Option(help="Tasks, separated by commas; all the model has by default.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Agreement of the model with itself below which a pixel is ignored.")
    ] = 0.9,
) -> None:
    """Label images with an exported model, to train other networks with. The same command goes on.

    Exit status: 0 all images are labelled, 1 some could not be (they are named), 2 nothing was done.
    """
    from mtcp_serve.inference.registry import task_names
    from training.pseudo.labelling import Outcome, PseudoLabeller, find_images

    console = Console(stderr=True)
    with told(ValueError):  # a `PseudoLabelError`, or no task is named
        names = None if tasks is None else task_names(tasks)
        found = find_images(images)
        labeller = PseudoLabeller(bundle, output, names, confidence)

    async def run(progress: Progress) -> list[Outcome]:
        outcomes = []
        ready = set(labeller.done()) & set(found)
        bar = progress.add_task("images", total=len(found), completed=len(ready))
        async for outcome in labeller.label(found):
            outcomes.append(outcome)
            if outcome.error is not None:
                console.print(
                    f"[bold red]failed:[/] {escape(outcome.error)}", soft_wrap=True, highlight=False
                )
            progress.advance(bar)
        return outcomes

    with Progress(console=console) as progress:
        outcomes = asyncio.run(run(progress))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    labelled = [outcome.kept for outcome in outcomes if outcome.error is None]
    kept = (
        ", ".join(
            f"{name} {sum(shares[name] for shares in labelled) / len(labelled):.0%}" for name in labelled[0]
        )
        if labelled
        else "nothing new"
    )
    console.print(
        f"{len(labelled)} images labelled, {len(failed)} failed; pixels kept: {kept}", highlight=False
    )
    if failed:
        raise typer.Exit(ExitStatus.FAILED)
