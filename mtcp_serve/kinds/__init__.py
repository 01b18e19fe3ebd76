"""Kinds of task, a file each. A new one is a file and a line in `KINDS`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mtcp_serve.kinds.base import Map, MapOut, TaskSpec
from mtcp_serve.kinds.depth import DepthOut, DepthTask
from mtcp_serve.kinds.labels import Label, LabelsOut, LabelsTask
from mtcp_serve.kinds.normals import NormalsOut, NormalsTask
from mtcp_serve.kinds.probability import ProbabilityOut, ProbabilityTask

__all__ = [
    "KINDS",
    "AnyMap",
    "AnyTask",
    "DepthOut",
    "DepthTask",
    "Label",
    "LabelsOut",
    "LabelsTask",
    "Map",
    "MapOut",
    "NormalsOut",
    "NormalsTask",
    "ProbabilityOut",
    "ProbabilityTask",
    "TaskSpec",
]

KINDS: Final[dict[str, type[TaskSpec]]] = {
    "labels": LabelsTask,
    "depth": DepthTask,
    "normals": NormalsTask,
    "probability": ProbabilityTask,
}
"""The kinds of task by the name that manifests and responses give them."""


class _ByKind:
    """For pydantic: the class that belongs to the ``kind`` of a value, as `KINDS` has it at that moment."""

    def __init__(self, base: type, choose: Callable[[type[TaskSpec]], Any]) -> None:
        self._base = base
        self._choose = choose

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schemas = {kind: _named(self._choose(task)) for kind, task in KINDS.items()}
        return handler(core_schema.tagged_union_schema(schemas, discriminator="kind"))

    def _validate(self, value: Any) -> Any:
        if isinstance(value, self._base):
            return value
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, it must be one of {', '.join(KINDS)}")
        return self._choose(KINDS[kind]).model_validate(value)


def _named(model: type[BaseModel]) -> CoreSchema:
    """The schema of ``model``, for a document to hold once and refer to by the name of the class."""
    ref = f"{model.__module__}.{model.__qualname__}:{id(model)}"
    schema: Any = model.__pydantic_core_schema__
    if schema["type"] == "definitions":
        schema = {**schema, "schema": {**schema["schema"], "ref": ref}}
    else:
        schema = {**schema, "ref": ref}
    named: CoreSchema = schema
    return named


if TYPE_CHECKING:
    AnyTask = TaskSpec
    AnyMap = MapOut
else:
    AnyTask = Annotated[Any, _ByKind(TaskSpec, lambda task: task)]
    """A field that holds the manifest's entry of a task of any kind."""
    AnyMap = Annotated[Any, _ByKind(MapOut, lambda task: task.metadata)]
    """A field that holds the metadata of a map of any kind."""
