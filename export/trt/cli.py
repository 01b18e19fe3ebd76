"""``python -m export.trt SOURCE``: a checkpoint or a bundle becomes a TensorRT plan that Triton can serve."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.errors import ExportError
from export.fp16.cli import describe_results
from export.onnx.cli import export_checkpoint
from export.renamed_flags import RenamedFlags
from export.triton.config import Serving
from export.triton.repository import write_repository
from export.trt.build import Profile
from export.trt.graph import Deformable
from export.trt.machine import load_tensorrt, missing, this_machine
from export.trt.plan import PLAN_FILE, Sidecar, load_plan
from export.trt.steps import GRAPH_FILE, Settings, build, evaluate_plan, prepare
from export.validation_images import IdsOption, ImagesOption, RgbImage, load_images
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.errors import BundleError
from training.checkpoint import CheckpointError
from training.config import ConfigError

UNFINISHED = 3
"""Exit status when everything is done that can be done without TensorRT."""
PROJECT = Path(__file__).resolve().parents[2]

app = typer.Typer(add_completion=False)


@app.command(cls=RenamedFlags)
def main(
    source: Annotated[Path, typer.Argument(help="What training wrote, or a bundle.", exists=True)],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder of the bundle; by default SOURCE, for a checkpoint without its suffix.",
        ),
    ] = None,
    profile: Annotated[str, typer.Option(metavar="MIN,OPT,MAX", help="Batch sizes of the plan.")] = "1,4,8",
    deformable: Annotated[
        Deformable, typer.Option(help="How deformable attention samples; gridsample for TensorRT 10.13 only.")
    ] = "gather",
    workspace: Annotated[
        float | None, typer.Option(min=0, help="GiB a layer may use beside its tensors.")
    ] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="File that makes the next build faster.")] = None,
    fp16_threshold: Annotated[float, typer.Option(min=0, max=1, help="Least share of layers in FP16.")] = 0.5,
    images: ImagesOption = None,
    ids: IdsOption = None,
    repository: Annotated[Path, typer.Option(help="Triton model repository to add to.")] = Path("repository"),
    check: Annotated[
        bool, typer.Option("--check", help="Only compare the plan that the bundle has.")
    ] = False,
) -> None:
    """Export, convert to FP16, build strongly typed, read the precision back, compare, serve.

    Exit status 1: a step failed; what the bundle held before stays. 3: TensorRT or a GPU is missing;
    everything else is done and kept, and the command that finishes is printed.
    """
    console = Console(stderr=True)
    try:
        settings = Settings(Profile.parse(profile), workspace, timing_cache, fp16_threshold)
        with console.status("exporting and comparing images; some minutes") as status:
            bundle = _bundle(source, out, images, ids)
            loaded = _images(bundle, images, ids)
            if not check:
                prepare(bundle, loaded, deformable)
                console.print(
                    f"{bundle.graph(GRAPH_FILE)}: ready for TensorRT, compared on {len(loaded)} images"
                )
            lacks = missing()
            if lacks:
                finish = _command(bundle.folder, repository, settings, deformable, images, ids, check)
                typer.echo(_unfinished(bundle.folder, lacks, finish, check), err=True)
                raise typer.Exit(UNFINISHED)
            status.update("TensorRT at work; many minutes")
            trt, here = load_tensorrt(), this_machine()
            if check:
                results = evaluate_plan(bundle, load_plan(bundle.folder, trt, here), loaded, settings.profile)
                for tasks in results.values():
                    Console().print(describe_results(tasks))
                return
            sidecar = build(bundle, loaded, settings, trt, here)
            model = write_repository(
                bundle,
                repository,
                backend="tensorrt",
                plans={here.compute_capability: bundle.graph(PLAN_FILE)},
                serving=Serving(max_batch=settings.profile.max),
            )
    except (ExportError, BundleError, CheckpointError, ConfigError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(_describe(bundle, sidecar, model))


def _bundle(source: Path, out: Path | None, images: Path | None, ids: Path | None) -> Bundle:
    """The bundle to work on: ``source`` itself, a copy of it, or what its checkpoint becomes."""
    if source.is_dir():
        bundle = Bundle.open(source.resolve())
        if out is None or out.resolve() == source.resolve():
            return bundle
        if out.exists():
            raise ExportError(f"{out} exists; give it alone to go on with it")
        return bundle.copy(out.resolve())
    out = (source.with_suffix("") if out is None else out).resolve()
    return export_checkpoint(source, out, load=lambda height, width: load_images(images, height, width, ids))


def _images(bundle: Bundle, images: Path | None, ids: Path | None) -> dict[str, RgbImage]:
    size = bundle.manifest.input
    return load_images(images, size.height, size.width, ids)


def _command(
    bundle: Path,
    repository: Path,
    settings: Settings,
    deformable: Deformable,
    images: Path | None,
    ids: Path | None,
    check: bool,
) -> str:
    """The container command that does what was asked for here, with the same files."""
    options = [
        f"--profile={','.join(map(str, settings.profile))}",
        f"--deformable={deformable}",
        f"--fp16-threshold={settings.fp16_threshold}",
    ]
    mounts = [(PROJECT, "/project"), (bundle.parent, "/bundles"), (repository.resolve(), "/repository")]
    if settings.workspace_gib is not None:
        options.append(f"--workspace={settings.workspace_gib}")
    if settings.timing_cache is not None:
        mounts.append((settings.timing_cache.resolve().parent, "/timings"))
        options.append(f"--timing-cache=/timings/{settings.timing_cache.name}")
    for option, path, inside in (("images", images, "/images"), ("ids", ids, "/ids.txt")):
        if path is not None:
            mounts.append((path.resolve(), inside))
            options.append(f"--{option}={inside}")
    if check:
        options.append("--check")
    options.append("--repository=/repository")
    command = shlex.join(["python", "-m", "export.trt", f"/bundles/{bundle.name}", *options])
    volumes = " ".join(shlex.join(["-v", f"{path}:{inside}"]) for path, inside in mounts)
    inside = shlex.quote(f"pip install '.[export,cpu]' && {command}")
    return f'docker run --rm --gpus all {volumes} -w /project "$TENSORRT_IMAGE" sh -c {inside}'


def _unfinished(bundle: Path, lacks: list[str], command: str, check: bool) -> str:
    """What is missing, and the command that finishes where it is not."""
    done = "" if check else f" Everything before TensorRT is done and kept in {bundle}."
    return (
        f"missing here: {'; '.join(lacks)}.{done}\n"
        "To finish where there is a GPU, name in TENSORRT_IMAGE a container image with TensorRT 10.13 or 11 "
        f"and a PyTorch for CUDA, then run:\n{command}"
    )


def _describe(bundle: Bundle, sidecar: Sidecar, model: Path) -> str:
    return (
        f"{bundle.graph(PLAN_FILE)}: {sidecar.machine.describe()}, "
        f"batches {','.join(map(str, sidecar.profile))}, "
        f"{sidecar.fp16_share:.0%} of its layers in FP16, maps as the float32 graph's; "
        f"for Triton in {model}"
    )
