"""Manifests in the configs of Triton's models: that of each version is the parameter ``manifest.VERSION``.

``export.triton`` writes them, and so does the gateway where it speaks Triton's protocol. What is read here
are messages of that protocol: ``ModelConfig`` and ``ModelMetadataResponse``.
"""

from collections.abc import Iterable
from typing import Any, Final

from mtcp_serve.bundle.manifest import GraphTensor, Manifest
from mtcp_serve.errors import BundleMismatchError, ManifestError

_PARAMETER: Final = "manifest."
_TYPES: Final = {"UINT8": "uint8", "FP32": "float32", "FP16": "float16"}
WRITE_AGAIN: Final = (
    "write the repository with python -m export.triton, then have Triton load the model again"
)


def parameter(version: int | str) -> str:
    """The name of the parameter with the manifest of ``version``."""
    return f"{_PARAMETER}{version}"


def newest(versions: Iterable[str]) -> str:
    """The newest of ``versions``: the largest number, for words, which a gateway may have, come before."""
    return max(versions, key=_order)


def sorted_versions(versions: Iterable[str]) -> list[str]:
    """``versions``, the newest last."""
    return sorted(versions, key=_order)


def read_manifests(config: Any, server: str) -> dict[str, Manifest]:
    """By version, the manifests in a model's ``config``, which ``server`` gave.

    Raises:
        ManifestError: one cannot be read; the message names the server, the model and the version.
    """
    return {
        key.removeprefix(_PARAMETER): read_manifest(config, key.removeprefix(_PARAMETER), server)
        for key in config.parameters
        if key.startswith(_PARAMETER)
    }


def read_manifest(config: Any, version: str, server: str) -> Manifest:
    """The manifest of ``version`` in a model's ``config``, which ``server`` gave.

    Raises:
        ManifestError: there is none, or it cannot be read; the message names the server, model and version.
    """
    where = f"the manifest of {config.name}, version {version}, in its config at {server}"
    if parameter(version) not in config.parameters:
        raise ManifestError(f"{where} is missing (parameter {parameter(version)}): {WRITE_AGAIN}")
    try:
        manifest = Manifest.parse(config.parameters[parameter(version)].string_value, where)
    except ManifestError as error:
        raise ManifestError(f"{error}: {WRITE_AGAIN}") from error
    if manifest.name != config.name:
        raise ManifestError(f"{where} is that of a model called {manifest.name}: {WRITE_AGAIN}")
    return manifest


def check_tensors(manifest: Manifest, metadata: Any, server: str) -> None:
    """Compare ``manifest`` with the tensors that ``server`` says the model has.

    Raises:
        BundleMismatchError: they differ; the message names the server, the model and every difference.
    """
    try:
        manifest.check_graph(_tensors(metadata.inputs), _tensors(metadata.outputs))
    except BundleMismatchError as error:
        raise BundleMismatchError(f"{metadata.name} at {server}: {error}: {WRITE_AGAIN}") from error


def _tensors(tensors: Iterable[Any]) -> list[GraphTensor]:
    return [
        GraphTensor(
            tensor.name,
            _TYPES.get(tensor.datatype, tensor.datatype),
            tuple(None if axis < 0 else axis for axis in tensor.shape),
        )
        for tensor in tensors
    ]


def _order(version: str) -> tuple[bool, int, str]:
    number = version.isascii() and version.isdecimal()
    return number, int(version) if number else 0, version
