"""The command line: ``mtcp-serve serve | predict | models | check``.

Exit codes: 0 all done; 1 some photos failed, the others are done, or a check failed; 2 nothing was done,
because of a wrong option, setting or bundle.
"""

import asyncio
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mtcp_serve import __version__
from mtcp_serve.errors import BundleError, RequestError, UnknownTaskError
from mtcp_serve.manifest import MANIFEST_FILE, MODEL_FILE, Manifest
from mtcp_serve.settings import BUNDLES, Settings

if TYPE_CHECKING:
    from mtcp_serve.engine import Engine

SOME_FAILED = 1
NOTHING_DONE = 2
_BUNDLE_HINT = "A bundle is a folder with manifest.json and model.onnx; pass its path, or set MTCP_BUNDLE."

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One photo, one request, five maps. Every setting can also be an environment variable MTCP_*.",
)
_errors = Console(stderr=True, highlight=False, soft_wrap=True)


def _option(name: str, *flags: str) -> Any:
    """A command line option for the setting ``name``, with its description and default."""
    field = Settings.model_fields[name]
    default = {"bundle": "the one in the package", "triton": "none"}.get(name, field.default)
    if isinstance(default, bool):
        default = "on" if default else "off"
    return typer.Option(*flags, help=f"{field.description} Default: {default}.", show_default=False)


BundleOption = Annotated[list[Path] | None, _option("bundle", "--bundle", "-b")]
ProviderOption = Annotated[str | None, _option("provider", "--provider")]
ThreadsOption = Annotated[int | None, _option("threads", "--threads")]


def main() -> None:
    """Entry point of ``mtcp-serve``."""
    # Pillow warns of odd metadata in photos: that is the sender's affair, and would fill the operator's log.
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    cli()


def _fail(message: str, code: int) -> NoReturn:
    _errors.print(f"[bold red]error:[/] {_plain(message)}")
    raise typer.Exit(code)


def _plain(text: object) -> str:
    return escape(str(text))


def _settings(**given: object) -> Settings:
    """The settings of the environment, with those options that were given."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        _fail(faults, NOTHING_DONE)


def _load(settings: Settings) -> "list[Engine]":
    """The engines of the settings' bundles; the import waits for it, so that ``--help`` does not."""
    from mtcp_serve.loading import load_engines

    try:
        return load_engines(settings)
    except BundleError as error:
        _fail(f"{error}\n{_BUNDLE_HINT}", NOTHING_DONE)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mtcp-serve {__version__}")
        raise typer.Exit


@cli.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@cli.command()
def serve(
    bundle: BundleOption = None,
    triton: Annotated[list[str] | None, _option("triton", "--triton")] = None,
    host: Annotated[str | None, _option("host", "--host")] = None,
    port: Annotated[int | None, _option("port", "--port")] = None,
    grpc_port: Annotated[int | None, _option("grpc_port", "--grpc-port")] = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    micro_batch: Annotated[int | None, _option("micro_batch", "--micro-batch")] = None,
    micro_batch_delay_ms: Annotated[
        float | None, _option("micro_batch_delay_ms", "--micro-batch-delay")
    ] = None,
    concurrency: Annotated[int | None, _option("concurrency", "--concurrency")] = None,
    queue: Annotated[int | None, _option("queue", "--queue")] = None,
    deadline_s: Annotated[float | None, _option("deadline_s", "--deadline")] = None,
    uploads: Annotated[int | None, _option("uploads", "--uploads")] = None,
    upload_s: Annotated[float | None, _option("upload_s", "--upload-time")] = None,
    max_bytes: Annotated[int | None, _option("max_bytes", "--max-bytes")] = None,
    max_pixels: Annotated[int | None, _option("max_pixels", "--max-pixels")] = None,
    max_side: Annotated[int | None, _option("max_side", "--max-side")] = None,
    batch_photos: Annotated[int | None, _option("batch_photos", "--batch-photos")] = None,
    batch_bytes: Annotated[int | None, _option("batch_bytes", "--batch-bytes")] = None,
    traces: Annotated[bool | None, _option("traces", "--traces/--no-traces")] = None,
    log_level: Annotated[str | None, _option("log_level", "--log-level")] = None,
    log_format: Annotated[str | None, _option("log_format", "--log-format")] = None,
) -> None:
    """Serve bundles over HTTP until interrupted. SIGTERM finishes what was accepted, SIGHUP reloads."""
    settings = _settings(**locals())
    engines = _load(settings)
    from mtcp_serve.app import create_app
    from mtcp_serve.logs import configure_logging
    from mtcp_serve.models import describe_engine
    from mtcp_serve.server import Server

    for engine in engines:
        _errors.print(describe_engine(engine))
    try:
        app = create_app(settings, engines)
    except ImportError as error:
        _fail(f"{error}; pip install 'mtcp-serve[otel,triton]' brings what is missing", NOTHING_DONE)
    configure_logging(settings.log_level, settings.log_format)
    Server(app, settings).run()


@cli.command()
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
        _fail(
            "two photos have the same name before the dot; their maps would overwrite each other",
            NOTHING_DONE,
        )
    settings = _settings(bundle=bundle, provider=provider, threads=threads)
    names = None if tasks is None else [name.strip() for name in tasks.split(",")]
    engines = _load(settings)
    try:
        choices = Models(Batcher(engine) for engine in engines).select(names)
    except (BundleError, UnknownTaskError) as error:
        _fail(str(error), NOTHING_DONE)
    progress = Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        console=_errors,
        disable=len(photos) == 1,
    )

    async def run() -> int:
        failed = 0
        bar = progress.add_task("photos", total=len(photos))
        async for outcome in predict_files(choices, size, ImageLimits.of(settings), folders):
            if outcome.error is None:
                _errors.print(f"{_plain(outcome.photo)} -> {_plain(outcome.folder)}  {outcome.seconds:.2f} s")
            else:
                failed += 1
                _errors.print(f"[bold red]failed:[/] {_plain(outcome.photo)}: {_plain(outcome.error)}")
            progress.advance(bar)
        return failed

    with progress:
        failed = asyncio.run(run())
    if failed:
        raise typer.Exit(SOME_FAILED)


@cli.command()
def models(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE]...", help="Folders of bundles; by default those in the package."),
    ] = None,
) -> None:
    """List bundles: model, tasks, input size, weights."""
    folders = bundles or sorted(path.parent for path in BUNDLES.glob(f"*/{MANIFEST_FILE}"))
    if not folders:
        _fail(f"this installation has no bundle in {BUNDLES}. {_BUNDLE_HINT}", NOTHING_DONE)
    table = Table("model", "version", "tasks", "input", "parameters", "GMACs", "MB", "license", box=None)
    for folder in folders:
        try:
            manifest = Manifest.load(folder)
            megabytes = (folder / MODEL_FILE).stat().st_size / 1e6
        except (BundleError, OSError) as error:
            _fail(str(error), NOTHING_DONE)
        table.add_row(
            manifest.name,
            manifest.version,
            ", ".join(task.name for task in manifest.tasks),
            f"{manifest.input.width} x {manifest.input.height}",
            "" if manifest.parameters is None else f"{manifest.parameters:,}",
            "" if manifest.gmacs is None else f"{manifest.gmacs:.2f}",
            f"{megabytes:.1f}",
            manifest.license or "",
        )
    Console(soft_wrap=True).print(table)


@cli.command()
def check(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.", exists=True, file_okay=False)],
    photo: Annotated[
        Path | None,
        typer.Option(help="Photo to run; a drawn picture unless given.", exists=True, dir_okay=False),
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Check a bundle: manifest, hashes, opset, nodes, graph, and the maps of a photo. On the CPU.

    Exit status 0: all is well; 1: something is not; 2: the photo cannot be used.
    """
    from mtcp_serve.check import check_bundle

    colours = {"ok": "green", "failed": "bold red", "not run": "yellow"}
    table = Table("check", "result", "found", box=None)
    failed = False
    try:
        for row in check_bundle(bundle, photo.read_bytes() if photo else None, threads or 0):
            failed |= row.status != "ok"
            table.add_row(row.check, f"[{colours[row.status]}]{row.status}[/]", _plain(row.detail))
    except (RequestError, OSError) as error:
        _fail(f"{photo}: {error}", NOTHING_DONE)
    Console(soft_wrap=True).print(table)
    if failed:
        raise typer.Exit(SOME_FAILED)
