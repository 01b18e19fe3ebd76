"""What pydantic found wrong, in words for whoever gave it."""

from collections.abc import Sequence
from typing import Any


def faults_of(errors: Sequence[Any], skip: int = 0) -> str:
    """What pydantic found, in a line; of each place the first ``skip`` parts are left out."""

    def place(where: tuple[object, ...]) -> str:
        parts = where[skip:] or where
        return f"{'.'.join(map(str, parts))}: " if parts else ""

    return "; ".join(f"{place(fault['loc'])}{fault['msg'].removeprefix('Value error, ')}" for fault in errors)
