"""What the protocol says of a model, as plain dictionaries: both transports make theirs of them."""

from typing import Any

from mtcp_serve._version import __version__
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, Manifest, TaskSpec
from mtcp_serve.errors import UnknownModelError
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.registry import Models

SERVER = {
    "name": "mtcp-serve",
    "version": __version__,
    "extensions": ["binary_tensor_data", "model_configuration"],
}


def find(models: Models, name: str, version: str = "") -> Batcher:
    """The model ``name``, in ``version`` unless that is empty.

    Raises:
        UnknownModelError: there is none; the message says what there is.
    """
    batcher = models[name]
    found = batcher.engine.manifest.version
    if version not in ("", found):
        raise UnknownModelError(f"model {name} has no version {version!r}; it has {found}")
    return batcher


def datatype(task: TaskSpec) -> str:
    """Type of the tensor of ``task``, by the protocol's name."""
    return {"uint8": "UINT8", "float32": "FP32"}[task.array_type]


def metadata(manifest: Manifest) -> dict[str, Any]:
    """The answer of ``GET /v2/models/NAME``."""
    size = [-1, manifest.input.height, manifest.input.width]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "mtcp-serve",
        "inputs": [{"name": IMAGE_TENSOR, "datatype": "UINT8", "shape": [*size, 3]}],
        "outputs": [
            {"name": task.output, "datatype": datatype(task), "shape": [*size, *task.channels]}
            for task in manifest.tasks
        ],
    }


def config(manifest: Manifest, max_batch: int) -> dict[str, Any]:
    """Triton's model configuration; like ``export.triton`` it carries the manifest as a parameter."""

    def tensor(entry: dict[str, Any]) -> dict[str, Any]:
        kind = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}[entry["datatype"]]
        return {"name": entry["name"], "data_type": kind, "dims": entry["shape"][1:]}

    tensors = metadata(manifest)
    text = manifest.model_dump_json(by_alias=True, exclude_none=True)
    return {
        "name": manifest.name,
        "platform": "mtcp-serve",
        "max_batch_size": max_batch,
        "input": [tensor(entry) for entry in tensors["inputs"]],
        "output": [tensor(entry) for entry in tensors["outputs"]],
        "parameters": {f"manifest.{manifest.version}": {"string_value": text}},
    }


def index(models: Models) -> list[dict[str, Any]]:
    """Every model, as Triton's repository index lists them."""
    manifests = [batcher.engine.manifest for batcher in models]
    return [
        {"name": each.name, "version": each.version, "state": "READY", "reason": ""} for each in manifests
    ]
