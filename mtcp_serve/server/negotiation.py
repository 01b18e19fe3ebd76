"""Choosing the response format: the ``format`` parameter, else the ``Accept`` header, else JSON."""

from collections.abc import Mapping

import mimeparse  # type: ignore[import-untyped]

from mtcp_serve.errors import InvalidParameterError, NotAcceptableError
from mtcp_serve.outputs.formats import FORMATS, Writer


def choose_format(
    name: str | None, accept: str | None, maps: int, formats: Mapping[str, type[Writer]] = FORMATS
) -> type[Writer]:
    """The format called ``name``, or the one that ``accept`` likes best (of equals the first of ``formats``).

    Raises:
        InvalidParameterError: ``name`` holds one map only, but ``maps`` are asked for.
        NotAcceptableError: no format fits ``accept``, or it cannot be parsed; the message lists the types.
    """
    if name is not None:
        if formats[name].single and maps != 1:
            raise InvalidParameterError(
                f"format {name} holds one map, but {maps} are asked for", "name one task: ?tasks=depth"
            )
        return formats[name]
    offered = {form.media_type: form for form in formats.values() if maps == 1 or not form.single}
    if not accept:
        return next(iter(offered.values()))
    try:
        best = mimeparse.best_match(list(offered)[::-1], accept.lower())
    except ValueError:
        best = ""
    if not best:
        singles = ", ".join(form.media_type for form in formats.values() if form.single)
        more = f" ({singles} when one task is named)" if maps != 1 and singles else ""
        raise NotAcceptableError(
            f"no response type fits Accept: {accept}; there are {', '.join(offered)}{more}"
        )
    return offered[best]
