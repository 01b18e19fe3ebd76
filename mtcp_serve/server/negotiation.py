"""Choosing the response format: the ``format`` parameter, else the ``Accept`` header, else JSON."""

from collections.abc import Mapping, Sequence

import mimeparse  # type: ignore[import-untyped]

from mtcp_serve.errors import InvalidParameterError, NotAcceptableError
from mtcp_serve.kinds import TaskSpec
from mtcp_serve.outputs.formats import FORMATS, Writer


def choose_format(
    name: str | None,
    accept: str | None,
    tasks: Sequence[TaskSpec],
    formats: Mapping[str, type[Writer]] = FORMATS,
) -> type[Writer]:
    """The format called ``name``, or the one that ``accept`` likes best (of equals the first of ``formats``).

    Raises:
        InvalidParameterError: what `Writer.used` raises of the format called ``name`` and these ``tasks``.
        NotAcceptableError: no format fits ``accept``, or it cannot be parsed; the message lists the types.
    """
    if name is not None:
        formats[name].used(tasks)
        return formats[name]
    offered: dict[str, type[Writer]] = {}
    for form in formats.values():
        if not form.by_name_only and _fits(form, tasks):
            offered[form.media_type] = form
    if not accept:
        return next(iter(offered.values()))
    try:
        best = mimeparse.best_match(list(offered)[::-1], accept.lower())
    except ValueError:
        best = ""
    if not best:
        singles = ", ".join(form.media_type for form in formats.values() if form.single)
        more = f" ({singles} when one task is named)" if len(tasks) != 1 and singles else ""
        raise NotAcceptableError(
            f"no response type fits Accept: {accept}; there are {', '.join(offered)}{more}"
        )
    return offered[best]


def _fits(form: type[Writer], tasks: Sequence[TaskSpec]) -> bool:
    try:
        form.used(tasks)
    except InvalidParameterError:
        return False
    return True
