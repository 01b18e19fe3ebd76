"""The bundle contract: ``manifest.json`` says everything a server needs to know about a model.

The folder around it is a `mtcp_serve.bundle.bundle.Bundle`.

The graph behind a manifest takes one input, ``image``: uint8 ``[batch, height, width, 3]``, RGB. It gives
one output per task; normalisation and activations are inside it:

============== ============================ ==========================================
kind           shape                        values
============== ============================ ==========================================
``labels``     ``[batch, height, width]``    uint8 class ids, `LabelsTask.ignore_index` = no class
``depth``      ``[batch, height, width]``    distance (metres if metric), 0 = invalid
``normals``    ``[batch, height, width, 3]`` unit vectors in the frame that the task names
``probability`` ``[batch, height, width]``   0 to 1 (a ``uint8`` output is 255 times that)
============== ============================ ==========================================

A task may have a second output, its ``confidence``: float32 ``[batch, h, w]``, coarser than the map if the
manifest says so, the probability that the map is right there.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mtcp_serve.errors import BundleMismatchError, ManifestError
from mtcp_serve.kinds import (
    AnyTask,
    DepthTask,
    LabelsTask,
    NormalsTask,
    ProbabilityTask,
    TaskSpec,
)
from mtcp_serve.kinds.base import Confidence, Strict, TensorType, Text
from mtcp_serve.kinds.confidence import ConfidenceTask
from mtcp_serve.utils.atomic import write_atomic

__all__ = [
    "CARD_FILE",
    "IMAGE_TENSOR",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "PARITY_FILE",
    "RESERVED_TASK_NAMES",
    "SCHEMA_VERSION",
    "Confidence",
    "ConfidenceTask",
    "DepthTask",
    "FileEntry",
    "FileName",
    "GraphTensor",
    "InputSpec",
    "LabelsTask",
    "Manifest",
    "Name",
    "NormalsTask",
    "ProbabilityTask",
    "TaskSpec",
]

SCHEMA_VERSION: Final = 1
"""The only manifest schema that this package reads and writes."""
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
PARITY_FILE = "parity.json"
CARD_FILE = "MODEL_CARD.md"
IMAGE_TENSOR = "image"
"""Name of the graph's only input."""
RESERVED_TASK_NAMES = ("metadata", "overview")
"""Names that responses and output folders use beside the maps."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of an opened graph, as its engine states it."""

    name: str
    dtype: str
    """NumPy's name of the type, such as ``float32``."""
    shape: tuple[int | str | None, ...]
    """A symbolic axis is a string or ``None``."""


class InputSpec(Strict):
    """The size (pixels) that the graph takes, and how an image gets there: ``stretch`` ignores its aspect."""

    height: int = Field(ge=1, le=16384)
    width: int = Field(ge=1, le=16384)
    resize: Literal["stretch"] = "stretch"


class FileEntry(Strict):
    """A file of the bundle: its SHA-256 in hexadecimal and, for a graph, its ONNX opset."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    opset: int | None = Field(default=None, ge=1)

    @classmethod
    def of(cls, path: Path, opset: int | None = None) -> Self:
        """The entry of the file at ``path``, hashed now.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            return cls(sha256=hashlib.file_digest(file, "sha256").hexdigest(), opset=opset)


class Manifest(Strict):
    """Everything a server knows about a model. Immutable; the order of ``tasks`` is kept in answers."""

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, alias="schema")
    name: Name
    version: Name
    input: InputSpec
    tasks: tuple[AnyTask, ...] = Field(min_length=1, strict=False)
    files: dict[FileName, FileEntry]
    parameters: int | None = Field(default=None, ge=0)
    """Number of weights."""
    gmacs: float | None = Field(default=None, ge=0)
    """10^9 multiply-accumulates for one image."""
    license: Text | None = None
    description: Text | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if MODEL_FILE not in self.files:
            raise ValueError(f"files has no entry for {MODEL_FILE}")
        for what, values in (
            ("task names", [task.name for task in self.outputs]),
            ("task outputs", [task.output for task in self.outputs]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} must differ from one another; got {', '.join(values)}")
        for task in self.tasks:
            if task.name in RESERVED_TASK_NAMES:
                raise ValueError(f"no task may be called {task.name!r}, the responses use that name")
        return self

    @property
    def confidences(self) -> tuple[ConfidenceTask, ...]:
        """The confidences that the graph gives beside the maps, in the order of the tasks."""
        found = (ConfidenceTask.of(task) for task in self.tasks)
        return tuple(task for task in found if task is not None)

    @property
    def outputs(self) -> tuple[TaskSpec, ...]:
        """All that the graph gives: the tasks, then the confidences. Engines take any of them."""
        return (*self.tasks, *self.confidences)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read ``folder/manifest.json``.

        Raises:
            ManifestError: the file is missing or not JSON, its schema is not `SCHEMA_VERSION`, or a key is
                missing, unknown or wrong; the message names the file and every such key.
        """
        path = Path(folder) / MANIFEST_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ManifestError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ManifestError(f"{path} is not JSON: {error}") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Read the manifest in ``text``.

        Raises:
            ManifestError: it is not JSON, its schema is not `SCHEMA_VERSION`, or a key is missing, unknown or
                wrong; the message names ``source`` and every such key.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{source} is not JSON: {error}") from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if type(schema) is not int or schema != SCHEMA_VERSION:
            raise ManifestError(
                f"{source} has schema {schema!r}, but this mtcp-serve reads schema {SCHEMA_VERSION}"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_context=False)
            )
            raise ManifestError(f"{source} is not a valid manifest: {faults}") from error

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/manifest.json`` and return its path; a reader sees the old file or the new one.

        Raises:
            OSError: the folder does not exist or cannot be written.
        """
        path = Path(folder) / MANIFEST_FILE
        text = self.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"
        write_atomic(path, text.encode())
        return path

    def check_graph(self, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> None:
        """Compare the manifest with the inputs and outputs of the opened graph.

        The graph must have the one input ``image``, one output per task and one per confidence, with the
        types and shapes of this module's docstring. A symbolic (string or ``None``) height or width fits any;
        batch is symbolic or 1.

        Raises:
            BundleMismatchError: they differ; the message says what each side has, for every difference.
        """
        size = (self.input.height, self.input.width)
        faults = _compare("input", {IMAGE_TENSOR: ("uint8", (*size, 3))}, inputs)
        faults += _compare(
            "output", {task.output: (task.dtype, task.output_shape(*size)) for task in self.outputs}, outputs
        )
        if faults:
            raise BundleMismatchError(f"the manifest does not match the graph: {'; '.join(faults)}")


def _compare(
    side: str, wanted: dict[str, tuple[TensorType, tuple[int, ...]]], tensors: Sequence[GraphTensor]
) -> list[str]:
    """Differences between ``wanted`` (name -> type, shape without batch) and the graph's ``tensors``."""
    found = {tensor.name: tensor for tensor in tensors}
    if set(found) != set(wanted):
        return [f"manifest {side}s are {sorted(wanted)}, graph {side}s are {sorted(found)}"]
    faults = []
    for name, (dtype, shape) in wanted.items():
        tensor = found[name]
        if tensor.dtype != dtype:
            faults.append(f"{side} {name!r}: manifest type {dtype}, graph type {tensor.dtype}")
        if not _fits(tensor.shape, shape):
            faults.append(
                f"{side} {name!r}: manifest shape {['batch', *shape]}, graph shape {list(tensor.shape)}"
            )
    return faults


def _fits(found: Sequence[int | str | None], shape: tuple[int, ...]) -> bool:
    if len(found) != len(shape) + 1:
        return False
    batch, *rest = found
    return (not isinstance(batch, int) or batch == 1) and all(
        not isinstance(axis, int) or axis == wanted for axis, wanted in zip(rest, shape, strict=True)
    )
