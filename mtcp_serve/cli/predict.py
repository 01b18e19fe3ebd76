"""``mtcp-serve predict``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from mtcp_serve.errors import BundleError, InvalidParameterError, RequestError, UnknownTaskError
from mtcp_serve.utils.exit_status import ExitStatus
from mtcp_serve.utils.faults import faults_of

if TYPE_CHECKING:
    from mtcp_serve.inference.registry import Choice, Models
    from mtcp_serve.offline.video import VideoOptions
    from mtcp_serve.outputs.formats import Options, Writer
    from mtcp_serve.outputs.picture import Style

_OPACITY = 0.5
_LAYER = re.compile(r"([^:]+)(?::(0?\.\d+|1|1\.0+))?")


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
            help=f"The same, laid over the video; the opacity is {_OPACITY} unless given.",
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
        distances = Distances.parse(";".join(distance)) if distance else None
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
        rendered = _video_options(models, video or [], overlay or [], every, smooth)
        choices = models.select(names)
        switches = {"confidence": confidence, "refine": refine}
        formats, options = _formats(format or [], format_option or [], choices, colormap, legend, switches)
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
        style = _style(colormap, legend, choices, rendered, drawing)
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


def _style(
    colormap: str | None, legend: bool, choices: Sequence["Choice"], rendered: "VideoOptions", drawing: bool
) -> "Style":
    """How depth is drawn, of which there must be one."""
    from mtcp_serve.kinds.colormaps import DEFAULT
    from mtcp_serve.kinds.colormaps import colormap as table
    from mtcp_serve.outputs.picture import Style, check_style

    shown = [layer.choice for layer in rendered.layers] or choices
    check_style(colormap, legend, [choice.task for choice in shown])
    if not drawing and (colormap is not None or legend):
        raise InvalidParameterError(
            "--colormap and --legend are for pictures, and none is written",
            "leave --no-overview out, or name a --format that has visualizations",
        )
    try:
        table(colormap or DEFAULT)
    except ValueError as error:
        raise InvalidParameterError(f"--colormap: {error}") from error
    return Style(colormap or DEFAULT, legend)


def _formats(
    names: list[str],
    given: list[str],
    choices: "Sequence[Choice]",
    colormap: str | None,
    legend: bool,
    switches: Mapping[str, bool],
) -> "tuple[tuple[type[Writer], ...], Options]":
    """The formats called ``names``, which the tasks of ``choices`` suffice for, and their options."""
    from pydantic import TypeAdapter, ValidationError

    from mtcp_serve.inference.registry import with_confidence
    from mtcp_serve.outputs.formats import FORMATS, Options

    for name in names:
        if name not in FORMATS:
            raise InvalidParameterError(f"--format {name} is none of {', '.join(FORMATS)}")
    tasks = [choice.task for choice in choices]
    formats = tuple(FORMATS[name] for name in dict.fromkeys(names))
    files = [form.file_name.format(task=form.used(tasks)[0].name) for form in formats]
    if len(set(files)) != len(files):
        raise InvalidParameterError(f"the formats would overwrite each other: {', '.join(files)}")
    known = sorted(set().union(*(form.options for form in formats)))
    options = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise InvalidParameterError(
                f"--format-option {text}: write KEY=VALUE; the formats have {', '.join(known) or 'none'}"
            )
        options[key] = value
    for key, on in switches.items():
        if on and formats and key not in known:
            raise InvalidParameterError(
                f"--{key}: format {' and '.join(form.name for form in formats)} has none",
                "leave it out, or name another format",
            )
    said: dict[str, str | bool | None] = {"colormap": colormap, "legend": legend, **switches}
    for key, drawn in said.items():
        if drawn is None or drawn is False or key not in known:  # an overview or a rendered video may heed it
            continue
        if key in options:
            raise InvalidParameterError(f"--format-option {key} and --{key} are given", "give one of them")
        options[key] = str(drawn)
    try:
        parsed = TypeAdapter(Options).validate_python(options)
    except ValidationError as error:
        raise InvalidParameterError(f"--format-option: {faults_of(error.errors())}") from error
    for form in formats:
        if parsed.needs_confidence and "confidence" in form.options:
            with_confidence(choices, form.sure(form.used(tasks)))
    return formats, parsed


def _video_options(
    models: "Models", video: list[str], overlay: list[str], every: int, smooth: float
) -> "VideoOptions":
    from mtcp_serve.offline.video import Layer, VideoOptions

    layers = [Layer(choice) for choice in models.select(video)] if video else []
    for text in overlay:
        match = _LAYER.fullmatch(text)
        if match is None or float(match[2] or _OPACITY) == 0:
            fail(
                f"--overlay {text}: give TASK or TASK:OPACITY, the opacity above 0 and up to 1",
                ExitStatus.NOTHING_DONE,
            )
        layers += [Layer(choice, float(match[2] or _OPACITY)) for choice in models.select([match[1]])]
    if len({layer.name for layer in layers}) != len(layers):
        fail("--overlay names a task twice; their videos would overwrite each other", ExitStatus.NOTHING_DONE)
    return VideoOptions(tuple(layers), every, smooth)
