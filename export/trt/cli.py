"""``python -m export.trt SOURCE``: a checkpoint or a bundle becomes a TensorRT plan."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.errors import ExportError, told
from export.fp16.cli import describe_results
from export.onnx.cli import export_checkpoint
from export.renamed_flags import RenamedFlags
from export.triton.config import Serving
from export.triton.repository import write_repository
from export.trt.build import Profile
from export.trt.graph import Deformable
from export.trt.machine import RtxTargets, load_tensorrt, missing, this_machine
from export.trt.plan import PlanFiles, Sidecar
from export.trt.steps import GRAPH_FILE, Settings, build, prepare
from export.trt.steps import check as check_plan
from export.trt.target import HERE, Target
from export.validation_images import IdsOption, ImagesOption, RgbImage, load_images
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.utils.exit_status import ExitStatus
from training.checkpoint import CheckpointError
from training.config import ConfigError

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
    target: Annotated[
        str,
        typer.Option(
            metavar="here|rtx:SM,...",
            help="This machine's GPU, for Triton; or GPUs that need not be here: rtx:sm80,sm89.",
        ),
    ] = HERE,
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
        bool, typer.Option("--check", help="Only run and compare the plan that the bundle has, on a GPU.")
    ] = False,
) -> None:
    """Export, convert to FP16, build strongly typed, read the precision back, compare, serve.

    A plan for rtx: is built and read back without a GPU; --check on such a GPU runs and compares it.

    Exit status 1: a step failed; 2: something given cannot be used. What the bundle held before stays. 3:
    TensorRT or a GPU is missing; everything else is done and kept, and the command that finishes is printed.
    Or the plan is for other ones.
    """
    console = Console(stderr=True)
    with told(CheckpointError, ConfigError):
        settings = Settings(Profile.parse(profile), workspace, timing_cache, fp16_threshold)
        where = Target.parse(target)
        lacks = missing(where, running=check)
        if where.rtx and not lacks:
            where.check(load_tensorrt(where))
        with console.status("exporting and comparing images; some minutes") as status:
            bundle = _bundle(source, out, images, ids)
            loaded = _images(bundle, images, ids)
            if not check:
                prepare(bundle, loaded, deformable)
                console.print(
                    f"{bundle.graph(GRAPH_FILE)}: ready for TensorRT, compared on {len(loaded)} images"
                )
            if lacks:
                finish = _command(bundle.folder, repository, settings, deformable, images, ids, check, where)
                typer.echo(_unfinished(bundle.folder, lacks, finish, check, where), err=True)
                raise typer.Exit(ExitStatus.CANNOT_HERE)
            status.update("TensorRT at work; many minutes")
            trt = load_tensorrt(where)
            if check:
                for tasks in check_plan(bundle, loaded, settings, trt, this_machine(trt), where).values():
                    Console().print(describe_results(tasks))
                return
            if where.rtx:
                targets = RtxTargets(tensorrt_rtx=trt.__version__, compute_capabilities=where.capabilities)
                sidecar = build(bundle, loaded, settings, trt, targets)
                typer.echo(_describe(bundle, sidecar, None))
                return
            here = this_machine(trt)
            sidecar = build(bundle, loaded, settings, trt, here)
            model = write_repository(
                bundle,
                repository,
                backend="tensorrt",
                plans={here.compute_capability: bundle.graph(PlanFiles.of(where).plan)},
                serving=Serving(max_batch=settings.profile.max),
            )
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
    target: Target,
) -> str:
    """The container command that does what was asked for here, with the same files."""
    options = [
        f"--target={target}",
        f"--profile={','.join(map(str, settings.profile))}",
        f"--deformable={deformable}",
        f"--fp16-threshold={settings.fp16_threshold}",
    ]
    mounts = [(PROJECT, "/project"), (bundle.parent, "/bundles")]
    for_triton = not check and not target.rtx
    if for_triton:
        mounts.append((repository.resolve(), "/repository"))
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
    if for_triton:
        options.append("--repository=/repository")
    command = shlex.join(["python", "-m", "export.trt", f"/bundles/{bundle.name}", *options])
    volumes = " ".join(shlex.join(["-v", f"{path}:{inside}"]) for path, inside in mounts)
    extras = "export,cpu,rtx" if target.rtx else "export,cpu"
    inside = shlex.quote(f"pip install '.[{extras}]' && {command}")
    gpus = "" if target.rtx and not check else "--gpus all "
    return f'docker run --rm {gpus}{volumes} -w /project "$TENSORRT_IMAGE" sh -c {inside}'


def _unfinished(bundle: Path, lacks: list[str], command: str, check: bool, target: Target) -> str:
    """What is missing, and the command that finishes where it is not."""
    done = "" if check else f" Everything before TensorRT is done and kept in {bundle}."
    image = "a container image with a PyTorch for CUDA 13"
    if not target.rtx:
        image = "a container image with TensorRT 10.13 or 11 and a PyTorch for CUDA"
    where = "where there is a GPU" if check or not target.rtx else "on any x86-64 Linux, also without a GPU"
    return (
        f"missing here: {'; '.join(lacks)}.{done}\n"
        f"To finish {where}, name in TENSORRT_IMAGE {image}, then run:\n{command}"
    )


def _describe(bundle: Bundle, sidecar: Sidecar, model: Path | None) -> str:
    plan = bundle.graph(PlanFiles.of(sidecar.target).plan)
    found = (
        f"{plan}: {sidecar.built_for.describe()}, {plan.stat().st_size / 1e6:.1f} MB, "
        f"batches {','.join(map(str, sidecar.profile))}, "
        f"{sidecar.fp16_share:.0%} of its floating-point layers in FP16"
    )
    if model is not None:
        return f"{found}, maps as the float32 graph's; for Triton in {model}"
    return (
        f"{found}, as parsed ({sum(sidecar.layers.values())} layers)\n"
        "Still to do on one of these GPUs, which runs the plan and compares its maps: "
        f"python -m export.trt {shlex.quote(str(bundle.folder))} --target {sidecar.target} --check"
    )
