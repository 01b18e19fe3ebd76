"""Label spaces of one's own as a checkpoint keeps them: whole, for their files may change or go.

A configuration names such a space by the path of its file. One that comes from a checkpoint is validated in
the `context` of the spaces kept there, and they count for its network in place of the files.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from pydantic import BaseModel, PrivateAttr, TypeAdapter, ValidationError, ValidationInfo, model_validator

from training.label_spaces.files import LabelSpaceError
from training.label_spaces.space import LabelSpace

_PLAIN = TypeAdapter(dict[str, LabelSpace])
_KEY = "label_spaces"


def to_plain(spaces: Mapping[str, LabelSpace]) -> dict[str, Any]:
    """``spaces`` by path as plain types, for a checkpoint or JSON."""
    plain: dict[str, Any] = _PLAIN.dump_python(
        dict(spaces), mode="json", exclude={path: {"file"} for path in spaces}
    )
    return plain


def from_plain(plain: Any) -> dict[str, LabelSpace]:
    """The reverse of `to_plain`.

    Raises:
        LabelSpaceError: these are no label spaces.
    """
    try:
        spaces = _PLAIN.validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LabelSpaceError(f"label_spaces.{where}: {first['msg']}") from error
    return {path: replace(space, file=f"{path} as the checkpoint has it") for path, space in spaces.items()}


def context(spaces: Mapping[str, LabelSpace]) -> dict[str, Any]:
    """The context to validate settings in that come with ``spaces``, by path."""
    return {_KEY: dict(spaces)}


def kept_spaces(info: ValidationInfo) -> dict[str, LabelSpace]:
    """The spaces of the `context`."""
    spaces: dict[str, LabelSpace] = (info.context or {}).get(_KEY, {})
    return spaces


class KeepsSpaces(BaseModel):
    """Settings that name label spaces, and remember those of the `context` they were validated in."""

    _kept: dict[str, LabelSpace] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _keep_spaces(self, info: ValidationInfo) -> Self:
        self._kept = kept_spaces(info)
        return self
