"""What the Triton clients, blocking and asyncio, have in common: requests, answers, errors, retries."""

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from mtcp_serve.bundle.manifest import IMAGE_TENSOR, ConfidenceTask, Manifest, TaskSpec
from mtcp_serve.bundle.triton_config import WRITE_AGAIN, read_manifests, sorted_versions
from mtcp_serve.clients._memory import Region
from mtcp_serve.clients._options import bearer, check_authorities
from mtcp_serve.clients.errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ServerError,
    UnauthorizedError,
    UnavailableError,
)
from mtcp_serve.errors import ManifestError
from mtcp_serve.kinds.base import Map

_RETRY_BUFFER = 256 * 2**20
"""gRPC silently gives up retrying a request that is larger than this (by default 256 KiB)."""
_SERVICE = {
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),  # maps are larger than gRPC's 4 MB
    ("grpc.service_config", json.dumps(_SERVICE)),
    ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),  # so that a retry finds a server that is back
]
"""Channel options: no cap on messages, and retries within the deadline, on UNAVAILABLE only."""

_ERRORS: Final[dict[str, type[ClientError]]] = {
    "CANCELLED": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "UNAUTHENTICATED": UnauthorizedError,
    "UNAVAILABLE": UnavailableError,
}
_TLS = "grpcs://"
_Client = TypeVar("_Client")


def connector(
    kind: Callable[..., _Client], endpoint: str, api_key: str | None, authorities: str | PathLike[str] | None
) -> Callable[[], _Client]:
    """What makes a client of Triton's of ``kind`` for ``endpoint``; ``grpcs://`` before it means TLS.

    Raises:
        ValueError: a key that no header can carry, or authorities without TLS.
        OSError: ``authorities`` cannot be read.
    """
    address = endpoint.removeprefix(_TLS)
    if authorities is not None:
        check_authorities(authorities, address != endpoint, _TLS)
    authorization = None if api_key is None else bearer(api_key)

    def send_key(request: Any) -> None:
        request.headers["authorization"] = authorization

    def connect() -> _Client:
        client: Any = kind(
            address,
            ssl=address != endpoint,
            root_certificates=None if authorities is None else fspath(authorities),
            channel_args=CHANNEL,
        )
        if authorization is not None:
            client.register_plugin(send_key)
        connected: _Client = client
        return connected

    return connect


class RegionLostError(ServerError):
    """Triton knows nothing of a shared memory region, as after a new start; another one will do."""


class RegionInUseError(ServerError):
    """Triton does not forget a shared memory region yet: it still works on a request that nobody awaits."""


def translate(error: InferenceServerException) -> ClientError:
    """The client's error; to Triton a lost server, a full queue and a late request are all UNAVAILABLE."""
    code = str(error.status() or "").removeprefix("StatusCode.")
    message = error.message() or code
    kind = _ERRORS.get(code, ServerError)
    if code == "UNAVAILABLE" and "maximum queue size" in message:
        kind = OverloadedError
    elif code == "UNAVAILABLE" and "timeout expired" in message:
        kind = DeadlineError
    elif "Unable to find" in message and "shared memory region" in message:
        kind = RegionLostError
    elif "Cannot unregister" in message and "in use" in message:
        kind = RegionInUseError
    translated = kind(f"Triton: {message}", code=code)
    translated.__cause__ = error
    return translated


def is_answer(error: BaseException) -> bool:
    """Whether Triton itself ended the request so, and does not work on it any more."""
    answers = (OverloadedError, InvalidRequestError, NotFoundError)
    late = isinstance(error, DeadlineError) and error.code == "UNAVAILABLE"  # in Triton's queue
    return isinstance(error, answers) or late


def only_model(names: Sequence[str]) -> str:
    """The model to use when none was named.

    Raises:
        NotFoundError: there is none, or more than one.
    """
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise NotFoundError(f"name the model; the server has {found}")
    return names[0]


def ready_models(index: Any) -> list[str]:
    """The names of the models that are loaded, from a repository index."""
    return list(dict.fromkeys(model.name for model in index.models if model.state == "READY"))


def manifests(config: Any, server: str) -> dict[str, Manifest]:
    """The manifest of each version, from the config of a model of ``server``.

    Raises:
        ServerError: there is none, or one cannot be read; the message names server and model.
    """
    try:
        found = read_manifests(config.config, server)
    except ManifestError as error:
        raise ServerError(str(error)) from error
    if not found:
        raise ServerError(f"the config of {config.config.name} at {server} has no manifest: {WRITE_AGAIN}")
    return found


def of_version(known: Mapping[str, Manifest], version: str) -> Manifest:
    """The manifest of ``version``.

    Raises:
        NotFoundError: there is none.
    """
    if version not in known:
        raise NotFoundError(f"the model has no version {version}; it has {', '.join(sorted_versions(known))}")
    return known[version]


def select(manifest: Manifest, names: Sequence[str] | None) -> tuple[TaskSpec, ...]:
    """The tasks called ``names``, in the manifest's order; all for ``None``.

    Raises:
        NotFoundError: the model has no task of that name; the message lists those it has.
    """
    tasks = {task.name: task for task in manifest.tasks}
    for name in names or ():
        if name not in tasks:
            raise NotFoundError(f"{manifest.name} has no task {name!r}; it has {', '.join(tasks)}")
    return tuple(task for task in manifest.tasks if names is None or task.name in names)


def confidences(manifest: Manifest, tasks: Sequence[TaskSpec]) -> dict[str, ConfidenceTask]:
    """By the name of its task, how sure the model is of each of ``tasks`` that it knows that of.

    Raises:
        InvalidRequestError: it knows it of none of them.
    """
    found = {task.name: sure for task in tasks if (sure := ConfidenceTask.of(task)) is not None}
    if not found:
        raise InvalidRequestError(
            f"{manifest.name} does not say how sure it is of {', '.join(task.name for task in tasks)}"
        )
    return found


def check_images(images: NDArray[np.uint8], manifest: Manifest) -> None:
    """Refuse what the model does not take, before it is sent.

    Raises:
        InvalidRequestError: not uint8 ``[batch, height, width, 3]`` of the manifest's size.
    """
    wanted = (manifest.input.height, manifest.input.width, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        raise InvalidRequestError(
            f"{manifest.name} takes uint8 [batch, {', '.join(map(str, wanted))}]; "
            f"this is {images.dtype} {list(images.shape)}"
        )


def request(
    images: NDArray[np.uint8], tasks: Sequence[TaskSpec], region: Region | None
) -> tuple[list[InferInput], list[InferRequestedOutput]]:
    """Input and outputs of a request; through ``region``, if there is one, instead of in the message."""
    image = InferInput(IMAGE_TENSOR, list(images.shape), "UINT8")
    outputs = [InferRequestedOutput(task.output) for task in tasks]
    if region is None:
        image.set_data_from_numpy(images)
    else:
        region.write(IMAGE_TENSOR, images)
        for tensor in (image, *outputs):
            place = region.places[tensor.name()]
            tensor.set_shared_memory(region.name, place.bytes, place.offset)
    return [image], outputs


def answer(
    result: Any, tasks: Sequence[TaskSpec], region: Region | None, asked: tuple[int, ...]
) -> dict[str, Map]:
    """Map by task name, ``[batch, ...]``, in arrays of their own, for images of the shape ``asked``.

    Raises:
        ServerError: a map is missing, or is not what the manifest says.
    """
    maps = {}
    for task in tasks:
        try:
            array = result.as_numpy(task.output) if region is None else region.read(task.output)
        except ValueError as error:
            raise ServerError(f"Triton's {task.output} cannot be read: {error}") from error
        if array is None:
            raise ServerError(f"Triton's answer has no {task.output}")
        expected = (asked[0], *task.output_shape(*asked[1:3]))
        if array.shape != expected or array.dtype != task.dtype:
            raise ServerError(
                f"Triton's {task.output} is {array.dtype} {list(array.shape)}, "
                f"the manifest says {task.dtype} {list(expected)}"
            )
        maps[task.name] = task.to_map(array)
    return maps
