"""``python -m export.onnx CHECKPOINT -o FOLDER``: a trained checkpoint becomes a bundle."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.bundle_writer import BundleOptions, write_bundle
from export.deployment_module import DeploymentGraph
from export.errors import ExportError, told
from export.onnx.fp16_weights import round_to_fp16
from export.renamed_flags import RenamedFlags
from export.validation_images import IdsOption, ImagesOption, RgbImage, load_images
from mtcp_serve.bundle.bundle import Bundle
from training.checkpoint import CheckpointError, load_network
from training.config import ConfigError

SMALLEST = 32
"""Pixels a side of an input: an encoder makes one of so many."""
app = typer.Typer(add_completion=False)


@app.command(cls=RenamedFlags)
def main(
    checkpoint: Annotated[Path, typer.Argument(help="What training wrote.", exists=True, dir_okay=False)],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder of the bundle; one there is replaced.", resolve_path=True),
    ],
    images: ImagesOption = None,
    ids: IdsOption = None,
    card: Annotated[Path | None, typer.Option(help="Model card to put into the bundle.")] = None,
    name: Annotated[str | None, typer.Option(help="Model name; the checkpoint's unless given.")] = None,
    version: Annotated[str, typer.Option(help="Model version.")] = "1",
    license: Annotated[str | None, typer.Option(help="Terms of the weights, such as Apache-2.0.")] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(help="What it learnt from, in plain words; by default the titles of its sources."),
    ] = None,
    fp16_weights: Annotated[
        bool, typer.Option("--fp16-weights", help="Round weights to FP16: half the size.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Maps that are only resized, their edges not refined.")
    ] = False,
    height: Annotated[
        int | None, typer.Option(min=SMALLEST, help="Of the input, pixels; as in training unless given.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=SMALLEST, help="Beside --height.")] = None,
) -> None:
    """Write a bundle: manifest, ONNX graph with pre- and post-processing, parity with PyTorch on images.

    Exit status 1: a task's maps differ from PyTorch's; 2: something given cannot be used. Then no bundle is
    written.
    """
    size = _size(height, width)
    with (
        told(CheckpointError, ConfigError),
        Console(stderr=True).status("exporting, then comparing images; some minutes"),
    ):
        bundle = export_checkpoint(
            checkpoint,
            out,
            load=lambda height, width: load_images(images, height, width, ids),
            card=card,
            name=name,
            version=version,
            license=license,
            trained_on=trained_on,
            fp16_weights=fp16_weights,
            plain=plain,
            size=size,
        )
    typer.echo(describe(bundle))


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    load: Callable[[int, int], Mapping[str, RgbImage]],
    card: Path | None = None,
    name: str | None = None,
    version: str = "1",
    license: str | None = None,
    trained_on: str | None = None,
    fp16_weights: bool = False,
    plain: bool = False,
    size: tuple[int, int] | None = None,
) -> Bundle:
    """Write the bundle ``out`` of what training wrote, compared on the images that ``load`` gives for a size.

    ``plain`` leaves the edges of maps as they are resized; see `training.guided_filter`. ``size``, height and
    width of the input in pixels, is that of training unless given.

    Raises:
        CheckpointError, ConfigError: the checkpoint cannot be read.
        ExportError: the checkpoint lies in ``out``, which the bundle replaces; or as
            `export.bundle_writer.write_bundle`.
        BundleWriteError: as there.
    """
    if checkpoint.resolve().is_relative_to(out.resolve()):
        raise ExportError(
            f"{checkpoint} lies in {out}, which the bundle would replace, with the checkpoint; "
            "choose another folder, or move the checkpoint out of it"
        )
    network, config = load_network(checkpoint)
    if fp16_weights:
        round_to_fp16(network)
    height, width = size or (config.data.height, config.data.width)
    graph = DeploymentGraph(network, config.tasks, height, width, refine=not plain)
    sources = ", ".join(dict.fromkeys(source.title or source.label for source in config.data.train))
    options = BundleOptions(name or config.name, version, card, trained_on or sources, license)
    return write_bundle(graph, load(height, width), out, options)


def _size(height: int | None, width: int | None) -> tuple[int, int] | None:
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise typer.BadParameter("give both --height and --width, or neither")
    return height, width


def describe(bundle: Bundle) -> str:
    """One line for people: where the bundle is and how large."""
    manifest, size = bundle.manifest, bundle.manifest.input
    megabytes = bundle.graph().stat().st_size / 1e6
    parameters = (manifest.parameters or 0) / 1e6
    return (
        f"{bundle.folder}: {manifest.name} {manifest.version}, {size.height}x{size.width}, "
        f"{', '.join(task.name for task in manifest.tasks)}; "
        f"{megabytes:.1f} MB, {parameters:.2f} M parameters, {manifest.gmacs:.1f} GMACs"
    )
