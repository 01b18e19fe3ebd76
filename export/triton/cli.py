"""``python -m export.triton BUNDLE -o REPOSITORY --backend python``: a bundle becomes a Triton model."""

from pathlib import Path
from typing import Annotated

import typer

from export.errors import ExportError, told
from export.triton.config import Backend, Device, Serving
from export.triton.repository import write_repository
from mtcp_serve.bundle.bundle import Bundle

_DEFAULT = Serving()
app = typer.Typer(add_completion=False)


@app.command()
def main(
    folder: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.", exists=True, file_okay=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="Model repository; made, or added to.", file_okay=False, resolve_path=True
        ),
    ],
    backend: Annotated[Backend, typer.Option(help="What runs the model; python is ONNX Runtime in Python.")],
    version: Annotated[
        int | None, typer.Option(help="Triton's version number; the bundle's unless given.")
    ] = None,
    plan: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CAPABILITY=FILE", help="TensorRT plan for a compute capability; repeat for more GPUs."
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(help="Copies of the model, on each GPU or the CPU.")
    ] = _DEFAULT.instances,
    device: Annotated[Device, typer.Option(help="Where they run.")] = _DEFAULT.device,
    threads: Annotated[
        int, typer.Option(help="CPU threads of one inference; 0 leaves it to ONNX Runtime.")
    ] = _DEFAULT.threads,
    max_batch: Annotated[int, typer.Option(help="Images that run together at most.")] = _DEFAULT.max_batch,
    queue_delay_us: Annotated[
        int, typer.Option(help="Microseconds that an image may wait for others to run with.")
    ] = _DEFAULT.queue_delay_us,
    queue_size: Annotated[
        int, typer.Option(help="Requests that may wait; one more is refused.")
    ] = _DEFAULT.queue_size,
    queue_timeout_ms: Annotated[
        int, typer.Option(help="Milliseconds after which a waiting request is refused.")
    ] = _DEFAULT.queue_timeout_ms,
    latest: Annotated[
        int, typer.Option(help="Serve only so many of the newest versions; 0 is all.")
    ] = _DEFAULT.latest,
    config_only: Annotated[
        bool, typer.Option("--config-only", help="Write config.pbtxt, but no model.")
    ] = False,
) -> None:
    """Write a model of a Triton repository. Other models and versions there stay.

    Exit status 2: it cannot be written; the repository is then as it was.
    """
    with told():
        serving = Serving(
            instances=instances,
            device=device,
            threads=threads,
            max_batch=max_batch,
            queue_delay_us=queue_delay_us,
            queue_size=queue_size,
            queue_timeout_ms=queue_timeout_ms,
            latest=latest,
        )
        model = write_repository(
            Bundle.open(folder),
            out,
            backend=backend,
            version=version,
            serving=serving,
            plans=_plans(plan or []),
            config_only=config_only,
        )
    versions = sorted(int(path.name) for path in model.iterdir() if path.name.isdecimal())
    typer.echo(f"{model}: {backend}, versions {', '.join(map(str, versions)) or 'none (config only)'}")


def _plans(given: list[str]) -> dict[str, Path]:
    plans = {}
    for text in given:
        capability, equals, file = text.partition("=")
        if not equals:
            raise ExportError(f"--plan {text} must look like 8.9=model.plan")
        plans[capability] = Path(file)
    return plans
