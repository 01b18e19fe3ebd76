"""What ``mtcp-serve predict`` makes of its options: videos to render, formats to write, how to draw depth."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mtcp_serve.cli.common import fail
from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.utils.exit_status import ExitStatus
from mtcp_serve.utils.faults import faults_of

if TYPE_CHECKING:
    from mtcp_serve.inference.registry import Choice, Models
    from mtcp_serve.offline.video import VideoOptions
    from mtcp_serve.outputs.formats import Options, Writer
    from mtcp_serve.outputs.picture import Style

OPACITY = 0.5
"""Of an overlay that does not say."""
_LAYER = re.compile(r"([^:]+)(?::(0?\.\d+|1|1\.0+))?")


def video_options(
    models: "Models", video: list[str], overlay: list[str], every: int, smooth: float
) -> "VideoOptions":
    """What is rendered of videos, and how frames are taken; a mistake in it ends the command.

    Raises:
        UnknownTaskError: there is no task of that name.
    """
    from mtcp_serve.offline.video import Layer, VideoOptions

    layers = [Layer(choice) for choice in models.select(video)] if video else []
    for text in overlay:
        match = _LAYER.fullmatch(text)
        if match is None or float(match[2] or OPACITY) == 0:
            fail(
                f"--overlay {text}: give TASK or TASK:OPACITY, the opacity above 0 and up to 1",
                ExitStatus.NOTHING_DONE,
            )
        layers += [Layer(choice, float(match[2] or OPACITY)) for choice in models.select([match[1]])]
    if len({layer.name for layer in layers}) != len(layers):
        fail("--overlay names a task twice; their videos would overwrite each other", ExitStatus.NOTHING_DONE)
    return VideoOptions(tuple(layers), every, smooth)


def style_of(
    colormap: str | None, legend: bool, choices: Sequence["Choice"], rendered: "VideoOptions", drawing: bool
) -> "Style":
    """How depth is drawn, of which there must be one.

    Raises:
        InvalidParameterError: nothing is drawn that heeds it, or there is no such table of colors.
    """
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


def formats_of(
    names: list[str],
    given: list[str],
    choices: "Sequence[Choice]",
    colormap: str | None,
    legend: bool,
    switches: Mapping[str, bool],
) -> "tuple[tuple[type[Writer], ...], Options]":
    """The formats called ``names``, which the tasks of ``choices`` suffice for, and their options.

    Raises:
        InvalidParameterError: there is no such format or option, or they do not go together.
    """
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
