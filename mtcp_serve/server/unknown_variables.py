"""Environment variables that look like settings and are none: misspelt ones, which nothing reads."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Final

from mtcp_serve.server.renamed import RENAMED
from mtcp_serve.server.settings import Settings

_PREFIX: Final = "MTCP_"
_OF_TESTS: Final = "MTCP_TEST_"
_SERVICE: Final = "_SERVICE_HOST"


def unknown_variables(names: Iterable[str]) -> Iterator[str]:
    """What to tell of each variable of ``names`` that starts like a setting and is none; never its value.

    Upper and lower case are the same, as for the settings. What this project's tests read, and what
    Kubernetes sets for each service beside a pod (``MTCP_SERVICE_HOST``, ``MTCP_PORT_8000_TCP``), is left.
    """
    spelled = {name.upper(): name for name in sorted(names)}
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    heeded = known | {f"{_PREFIX}{name.upper()}" for name in RENAMED}
    services = [name.removesuffix(_SERVICE) for name in spelled if name.endswith(_SERVICE)]
    foreign = (_OF_TESTS, *(f"{service}_{what}" for service in services for what in ("SERVICE_", "PORT")))
    for name, given in spelled.items():
        if not name.startswith(_PREFIX) or name in heeded or name.startswith(foreign):
            continue
        near = difflib.get_close_matches(
            name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in sorted(known)], 1
        )
        hint = f"did you mean {_PREFIX}{near[0]}?" if near else "mtcp-serve serve --help has the settings"
        yield f"{given} is no setting and has no effect; {hint}"
