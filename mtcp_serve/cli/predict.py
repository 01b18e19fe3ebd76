"""``mtcp-serve predict``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mtcp_serve.cli.common import (
    OLD_THREADS,
    BundleOption,
    EngineOption,
    OldThreadsOption,
    PrecisionOption,
    ProviderOption,
    StreamsOption,
    ThreadsOption,
    fail,
    load,
    read_settings,
    take_old,
)
from mtcp_serve.cli.completion import complete_colormap, complete_format, complete_task, complete_tasks
from mtcp_serve.cli.inputs import (
    check_live,
    check_moving,
    check_one_image,
    check_video,
    parse_input,
    say_what_is_left_out,
)
from mtcp_serve.cli.request import OPACITY, formats_of, style_of, video_options
from mtcp_serve.errors import BundleError, InvalidParameterError, RequestError, UnknownTaskError
from mtcp_serve.utils.exit_status import ExitStatus


def predict(
    inputs: Annotated[
        list[Any],
        typer.Argument(
            metavar="INPUT...",
            parser=parse_input,
            help="Images, folders of images, videos; camera:0; addresses (http, https, rtsp, rtsps) of "
            "images, videos and streams.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; one folder per image or video in it.")
    ],
    bundle: BundleOption = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into folders in folders.")] = False,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks, separated by commas; all the model has by default.", autocompletion=complete_tasks
        ),
    ] = None,
    size: Annotated[
        Literal["input", "model"],
        typer.Option(help="Maps as large as the image, or as the model gives them."),
    ] = "input",
    arrays: Annotated[bool, typer.Option("--arrays/--no-arrays", help="Write maps.npz.")] = True,
    overview: Annotated[bool, typer.Option("--overview/--no-overview", help="Write overview.png.")] = True,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Write this response format of the server instead of those files; may be given again.",
            autocompletion=complete_format,
        ),
    ] = None,
    format_option: Annotated[
        list[str] | None,
        typer.Option(
            "--format-option",
            metavar="KEY=VALUE",
            help="A parameter of a format, such as step=4 or background=#ffffff; may be given again.",
        ),
    ] = None,
    colormap: Annotated[
        str | None,
        typer.Option(
            "--colormap",
            metavar="NAME",
            help="Colors of depth in overviews, videos and visualizations: turbo, viridis, spectral, ...",
            autocompletion=complete_colormap,
        ),
    ] = None,
    legend: Annotated[
        bool, typer.Option("--legend", help="Say below them which depth a color stands for.")
    ] = False,
    confidence: Annotated[
        bool,
        typer.Option(
            "--confidence", help="Write how sure the model is of each map too, where the model says so."
        ),
    ] = False,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine",
            help="Bring classes, depth and probabilities to the size of the image along its edges: sharper, "
            "and slower.",
        ),
    ] = False,
    video: Annotated[
        list[str] | None,
        typer.Option(
            "--video",
            metavar="TASK",
            help="Of videos, render a video of the colors of TASK instead of maps; may be given again.",
            autocompletion=complete_task,
        ),
    ] = None,
    overlay: Annotated[
        list[str] | None,
        typer.Option(
            "--overlay",
            metavar="TASK[:OPACITY]",
            help=f"The same, laid over the video; the opacity is {OPACITY} unless given.",
            autocompletion=complete_task,
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of videos, take each Nth frame only.")] = 1,
    smooth: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.99,
            metavar="SHARE",
            help="Of videos, take the flicker off: the share of the past where nothing moves, such as 0.8.",
        ),
    ] = 0.0,
    frames: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of cameras and streams, take N frames, then end.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="Of cameras and streams, take S seconds, then end."),
    ] = None,
    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private", help="Connect to addresses that are not public ones of the Internet."
        ),
    ] = False,
    fov_x: Annotated[
        float | None,
        typer.Option(
            "--fov-x",
            metavar="DEGREES",
            help="The camera's field of view, left to right; by default as the EXIF or the model says.",
        ),
    ] = None,
    focal_px: Annotated[
        float | None,
        typer.Option("--focal-px", metavar="PIXELS", help="The same, as the focal length in pixels."),
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option("--intrinsics", metavar="FX,FY,CX,CY", help="The same, as four numbers in pixels."),
    ] = None,
    distance: Annotated[
        list[str] | None,
        typer.Option(
            "--distance",
            metavar="X,Y,METRES",
            help="Of one image: a distance that is known at a pixel, along the optical axis, to correct "
            "depth by; may be given again.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make again what is complete already.")
    ] = False,
    engine: EngineOption = None,
    provider: ProviderOption = None,
    precision: PrecisionOption = None,
    intra_op_threads: ThreadsOption = None,
    streams: StreamsOption = None,
    threads: OldThreadsOption = None,
) -> None:
    """Write the maps of images and videos.

    Of an image: TASK.png, maps.npz, overview.png, metadata.json; with --format its files and metadata.json.
    Of a video: the same per frame, or videos.

    What is complete is not made again: after an interruption the same command goes on.

    Exit status 0: all is there; 1: not all, or not whole; 2: nothing was done; 3: this machine cannot;
    130: interrupted.
    """
    from mtcp_serve.cli.progress import Work
    from mtcp_serve.inference.batcher import Batcher
    from mtcp_serve.inference.camera import CameraRequest
    from mtcp_serve.inference.distances import Distances, check_measurable
    from mtcp_serve.inference.pipeline import check_refine
    from mtcp_serve.inference.registry import Models, task_names, with_confidence
    from mtcp_serve.offline.inputs import InputError, collect
    from mtcp_serve.offline.live import Live
    from mtcp_serve.offline.writer import OutputRequest

    try:
        found = collect(inputs, out, recursive)
        camera = CameraRequest.parse(fov_x, focal_px, intrinsics)
        names = None if tasks is None else task_names(tasks)
        distances = None
        if distance:
            distances = Distances.of([point for text in distance for point in Distances.parse(text).points])
    except (InputError, ValueError) as error:
        fail(str(error), ExitStatus.NOTHING_DONE)
    except InvalidParameterError as error:
        fail(_with_hint(error), ExitStatus.NOTHING_DONE)
    if distances is not None:
        check_one_image(found, "--distance")
    check_video(found)
    check_live(found, frames, seconds, allow_private)
    given: dict[str, Any] = {
        "bundle": bundle,
        "engine": engine,
        "provider": provider,
        "precision": precision,
        "intra_op_threads": intra_op_threads,
        "streams": streams,
        "threads": threads,
    }
    take_old(given, OLD_THREADS)
    settings = read_settings(**given)
    engines = load(settings)
    try:
        models = Models(Batcher(engine) for engine in engines)
        rendered = video_options(models, video or [], overlay or [], every, smooth)
        choices = models.select(names)
        switches = {"confidence": confidence, "refine": refine}
        formats, options = formats_of(format or [], format_option or [], choices, colormap, legend, switches)
        refine = refine or bool(options.refine)
        if refine:
            check_refine("input" if rendered.layers else size)
        if confidence and rendered.layers:
            raise InvalidParameterError(
                "--confidence is of maps, a rendered video shows none", "leave it out"
            )
        if confidence or options.needs_confidence:
            choices = with_confidence(choices)
        if distances is not None:
            of_all = [choice.task for choice in choices]
            check_measurable([task for form in formats for task in form.used(of_all)] if formats else of_all)
        drawing = bool(rendered.layers or options.style or (overview and not formats))
        style = style_of(colormap, legend, choices, rendered, drawing)
        requested = OutputRequest(
            choices,
            size,
            arrays,
            overview,
            rendered,
            overwrite,
            camera,
            formats,
            options,
            style,
            refine,
            distances,
        )
    except (UnknownTaskError, InvalidParameterError) as error:
        fail(_with_hint(error), ExitStatus.NOTHING_DONE)
    except BundleError as error:
        fail(str(error), ExitStatus.NOTHING_DONE)
    if video or overlay or smooth or every > 1:
        check_moving(found)
    say_what_is_left_out(found)
    live = Live(allow_private, frames, seconds)
    raise typer.Exit(Work(found.items, requested, settings.image_limits, live).run())


def _with_hint(error: RequestError) -> str:
    """What is wrong and what to do; hints that are of any request of this kind send to the server's pages."""
    return str(error) if error.hint == error.default_hint else f"{error}; {error.hint}"
