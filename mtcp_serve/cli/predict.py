"""``mtcp-serve predict``."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mtcp_serve.cli.common import (
    ERRORS,
    NOTHING_DONE,
    SOME_FAILED,
    BundleOption,
    ProviderOption,
    ThreadsOption,
    fail,
    load,
    plain,
    read_settings,
)
from mtcp_serve.errors import BundleError, UnknownTaskError


def predict(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the maps; one folder a photo in it.")],
    bundle: BundleOption = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks, separated by commas; all the model has by default.")
    ] = None,
    size: Annotated[
        Literal["input", "model"],
        typer.Option(help="Maps as large as the photo, or as the model gives them."),
    ] = "input",
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Write the maps of photos: OUT/NAME/TASK.png, maps.npz, and overview.png to look at."""
    from mtcp_serve.batching import Batcher
    from mtcp_serve.bulk import predict_files
    from mtcp_serve.images import ImageLimits
    from mtcp_serve.models import Models

    folders = {photo: out / photo.stem for photo in photos}
    if len(set(folders.values())) != len(photos):
        fail(
            "two photos have the same name before the dot; their maps would overwrite each other",
            NOTHING_DONE,
        )
    settings = read_settings(bundle=bundle, provider=provider, threads=threads)
    names = None if tasks is None else [name.strip() for name in tasks.split(",")]
    engines = load(settings)
    try:
        choices = Models(Batcher(engine) for engine in engines).select(names)
    except (BundleError, UnknownTaskError) as error:
        fail(str(error), NOTHING_DONE)
    progress = Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        console=ERRORS,
        disable=len(photos) == 1,
    )

    async def run() -> int:
        failed = 0
        bar = progress.add_task("photos", total=len(photos))
        async for outcome in predict_files(choices, size, ImageLimits.of(settings), folders):
            if outcome.error is None:
                ERRORS.print(f"{plain(outcome.photo)} -> {plain(outcome.folder)}  {outcome.seconds:.2f} s")
            else:
                failed += 1
                ERRORS.print(f"[bold red]failed:[/] {plain(outcome.photo)}: {plain(outcome.error)}")
            progress.advance(bar)
        return failed

    with progress:
        failed = asyncio.run(run())
    if failed:
        raise typer.Exit(SOME_FAILED)
