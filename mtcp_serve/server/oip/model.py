"""What the protocol says of a model, as plain dictionaries: both transports make theirs of them."""

from typing import Any

from mtcp_serve._version import __version__
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, Manifest, TaskSpec
from mtcp_serve.bundle.triton_config import parameter
from mtcp_serve.errors import UnknownModelError
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.registry import Models

SERVER = {
    "name": "mtcp-serve",
    "version": __version__,
    "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
}


REPOSITORY = (
    "models are loaded and unloaded by whoever runs the server, not by its clients",
    "change MTCP_BUNDLE and restart, or replace the bundle's files and send SIGHUP",
)
"""Message and hint for the repository's load and unload."""


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
    """The response of ``GET /v2/models/NAME``."""
    size = (manifest.input.height, manifest.input.width)
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "mtcp-serve",
        "inputs": [{"name": IMAGE_TENSOR, "datatype": "UINT8", "shape": [-1, *size, 3]}],
        "outputs": [
            {"name": task.output, "datatype": datatype(task), "shape": [-1, *task.output_shape(*size)]}
            for task in manifest.outputs
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
        "parameters": {parameter(manifest.version): {"string_value": text}},
    }


def index(models: Models) -> list[dict[str, Any]]:
    """Every model, as Triton's repository index lists them."""
    manifests = [batcher.engine.manifest for batcher in models]
    return [
        {"name": each.name, "version": each.version, "state": "READY", "reason": ""} for each in manifests
    ]


def statistics(batcher: Batcher) -> dict[str, Any]:
    """Triton's statistics of a model; an image counts as a request.

    What is done before and after the network is in the graph, so that all of it is ``compute_infer``.
    """
    manifest, found = batcher.engine.manifest, batcher.statistics
    none = _duration(found.images, 0.0)
    return {
        "name": manifest.name,
        "version": manifest.version,
        "last_inference": round(1000 * found.last),
        "inference_count": found.images,
        "execution_count": sum(count.batches for count in found.by_size.values()),
        "inference_stats": {
            "success": _duration(found.images, found.queue_s + found.infer_s),
            "fail": _duration(found.failed, found.failed_s),
            "queue": _duration(found.images, found.queue_s),
            "compute_input": none,
            "compute_infer": _duration(found.images, found.infer_s),
            "compute_output": none,
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(count.batches, 0.0),
                "compute_infer": _duration(count.batches, count.seconds),
                "compute_output": _duration(count.batches, 0.0),
            }
            for size, count in sorted(found.by_size.items())
        ],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(1e9 * seconds)}
