"""Choosing the response format: the ``format`` parameter, else the ``Accept`` header, else JSON."""

import mimeparse  # type: ignore[import-untyped]

from mtcp_serve.encoding import FORMATS, Format
from mtcp_serve.errors import NotAcceptableError


def choose_format(name: str | None, accept: str | None) -> Format:
    """The format called ``name``, or the one that ``accept`` likes best (of equals the first of `FORMATS`).

    Raises:
        NotAcceptableError: no format fits ``accept``, or it cannot be parsed; the message lists the types.
    """
    if name is not None:
        return FORMATS[name]
    formats = list(FORMATS.values())
    if not accept:
        return formats[0]
    offered = [form.media_type for form in formats]
    try:
        best = mimeparse.best_match(offered[::-1], accept.lower())
    except ValueError:
        best = ""
    if not best:
        raise NotAcceptableError(f"no response type fits Accept: {accept}; there are {', '.join(offered)}")
    return formats[offered.index(best)]
