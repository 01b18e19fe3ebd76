"""Settings of the version before, by their old names: they work for this version, with a notice."""

import os
import warnings
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

RENAMED: Final = {
    "queue": "queue_size",
    "uploads": "max_concurrent_uploads",
    "micro_batch": "max_batch_size",
    "micro_batch_delay_ms": "max_queue_delay_ms",
    "threads": "intra_op_threads",
    "batch_photos": "max_batch_images",
    "batch_bytes": "max_batch_bytes",
}
"""Old name of a setting to the name it has."""


class RenamedWarning(FutureWarning):
    """A setting, option or environment variable was given by its old name."""


def renaming(old: str, new: str) -> str:
    """What to tell whoever used the name ``old``."""
    return f"{old} is called {new} now; the old name goes with the next version"


def _warn(old: str, new: str) -> None:
    warnings.warn(renaming(old, new), RenamedWarning, stacklevel=2)


def renamed(given: dict[str, Any]) -> dict[str, Any]:
    """``given`` with the names that settings have now.

    Raises:
        ValueError: a setting is there by both names.
    """
    found = dict(given)
    for old, new in RENAMED.items():
        if old in found:
            if new in found:
                raise ValueError(f"{old} is the old name of {new}; give {new} only")
            _warn(old, new)
            found[new] = found.pop(old)
    return found


class OldVariables(PydanticBaseSettingsSource):
    """The environment variables of old names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Nothing: `__call__` looks at the old names instead of at each field."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Those settings whose old variable is there and whose new one is not."""
        variables = {name.upper(): value for name, value in os.environ.items()}
        found = {}
        for old, new in RENAMED.items():
            old_variable, variable = f"MTCP_{old.upper()}", f"MTCP_{new.upper()}"
            if old_variable in variables and variable not in variables:
                _warn(old_variable, variable)
                found[new] = variables[old_variable]
        return found
