"""The Triton engine: the network runs in one or more Triton servers, over gRPC.

Imported only when endpoints are set; needs ``mtcp-serve[triton]``. The models must have been written by
``export.triton``, which puts the manifest of each version into the model's config.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

from mtcp_serve.bundle.manifest import IMAGE_TENSOR, Manifest, TaskSpec
from mtcp_serve.errors import BundleError, EngineLostError, InternalError, OverloadedError
from mtcp_serve.kinds.base import Map

_PARAMETER = "manifest."
_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),  # maps are larger than gRPC's 4 MB
    ("grpc.keepalive_time_ms", 10_000),  # a host that vanished is noticed
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
_TLS = "grpcs://"
_PROBE_S = 0.5
_START_S = 10.0
_LOST = ("UNAVAILABLE", "CANCELLED", "NOT_FOUND", "DEADLINE_EXCEEDED")
_log = logging.getLogger(__name__)


class Endpoint:
    """A Triton server, and whether it answered last."""

    def __init__(self, address: str, model: str, authorities: Path | None) -> None:
        self.address = address
        self.up = True
        self.client = AsyncClient(**_channel(address, authorities))
        self._model = model
        self._probing: asyncio.Task[None] | None = None

    def lost(self, error: InferenceServerException) -> None:
        """Take it out of the rotation, and ask it until it is back."""
        if self.up:
            _log.warning("Triton at %s does not answer: %s", self.address, error.message())
            self.up = False
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())

    async def close(self) -> None:
        """Close the connection."""
        if self._probing is not None:
            self._probing.cancel()
        await self.client.close()

    async def _probe(self) -> None:
        while not self.up:
            await asyncio.sleep(_PROBE_S)
            try:
                self.up = await self.client.is_model_ready(self._model, client_timeout=_PROBE_S)
            except InferenceServerException:
                continue
        _log.warning("Triton at %s is back", self.address)
        self._probing = None


class TritonEngine:
    """One model on several endpoints, in turn; one that does not answer is left out until it does.

    A request that an endpoint did not answer goes to the next: inference has no effect but its answer, so
    that is safe.
    """

    device = "triton"

    def __init__(
        self, addresses: Sequence[str], manifest: Manifest, version: str, authorities: Path | None = None
    ) -> None:
        self.manifest = manifest
        self.parallel = 2 * len(addresses)  # one is computed while the next is on its way
        self._addresses = addresses
        self._version = version
        self._authorities = authorities
        self._endpoints: list[Endpoint] = []
        self._next = 0

    @classmethod
    def load(cls, addresses: Sequence[str], authorities: Path | None = None) -> list[Self]:
        """An engine for every model that the first endpoint to answer has loaded.

        An address ``grpcs://HOST:PORT`` means TLS, where ``authorities`` (a PEM file) are trusted, or gRPC's.

        Raises:
            BundleError: no endpoint answers, or its models have no manifests; ``authorities`` cannot be read.
        """
        if authorities is not None and not authorities.is_file():
            raise BundleError(f"{authorities}, whose authorities are to be trusted, is not a file")
        faults = []
        for address in addresses:
            client = InferenceServerClient(**_channel(address, authorities))
            try:
                found = list(_models(client))
            except InferenceServerException as error:
                faults.append(f"{address}: {error.message()}")
                continue
            finally:
                client.close()
            if not found:
                raise BundleError(f"Triton at {address} has no model loaded")
            return [cls(addresses, manifest, version, authorities) for manifest, version in found]
        raise BundleError(f"no Triton answers ({'; '.join(faults)})")

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        """See `mtcp_serve.engines.base.Engine.infer`.

        Raises:
            EngineLostError: no endpoint answers.
            OverloadedError: the queue of every endpoint that answers is full.
            InternalError: Triton refused the request, or its answer lacks a map.
        """
        image = InferInput(IMAGE_TENSOR, list(images.shape), "UINT8")
        image.set_data_from_numpy(images)
        outputs = [InferRequestedOutput(task.output) for task in tasks]
        full = False
        for endpoint in self._rotation():
            try:
                answer = await endpoint.client.infer(
                    self.manifest.name, [image], model_version=self._version, outputs=outputs
                )
            except InferenceServerException as error:
                code = str(error.status() or "").removeprefix("StatusCode.")
                if "maximum queue size" in error.message():
                    full = True
                elif code in _LOST:
                    endpoint.lost(error)
                else:
                    raise InternalError(f"Triton refused the request: {error.message()}") from error
                continue
            endpoint.up = True
            return [_read(answer, task, images.shape) for task in tasks]
        if full:
            raise OverloadedError("the queue of every Triton server that answers is full")
        raise EngineLostError(f"no Triton server answers ({', '.join(self._addresses)})")

    async def close(self) -> None:
        """See `mtcp_serve.engines.base.Engine.close`."""
        for endpoint in self._endpoints:
            await endpoint.close()

    def _rotation(self) -> list[Endpoint]:
        """Every endpoint once: first those that answer, each time beginning with the next one."""
        if not self._endpoints:  # made here: they belong to the running event loop
            self._endpoints = [
                Endpoint(address, self.manifest.name, self._authorities) for address in self._addresses
            ]
        start, count = self._next, len(self._endpoints)
        self._next = (start + 1) % count
        turn = [self._endpoints[(start + index) % count] for index in range(count)]
        return sorted(turn, key=lambda endpoint: not endpoint.up)


def _channel(address: str, authorities: Path | None) -> dict[str, Any]:
    """Arguments of Triton's clients."""
    plain = address.removeprefix(_TLS)
    given: dict[str, Any] = {"url": plain, "channel_args": _CHANNEL, "ssl": plain != address}
    if authorities is not None:
        given["root_certificates"] = str(authorities)
    return given


def _read(answer: Any, task: TaskSpec, shape: tuple[int, ...]) -> Map:
    array = answer.as_numpy(task.output)
    wanted = (shape[0], *task.output_shape(*shape[1:3]))
    if array is None or array.shape != wanted:
        found = None if array is None else list(array.shape)
        raise InternalError(f"Triton's {task.output} is {found}, the manifest says {list(wanted)}")
    return task.to_map(array)


def _models(client: InferenceServerClient) -> Iterator[tuple[Manifest, str]]:
    """Manifest and newest version of every model that is ready."""
    index = client.get_model_repository_index(client_timeout=_START_S)
    for name in sorted({model.name for model in index.models if model.state == "READY"}):
        metadata = client.get_model_metadata(name, client_timeout=_START_S)
        version = str(max(metadata.versions, key=int))
        parameters = client.get_model_config(name, client_timeout=_START_S).config.parameters
        if _PARAMETER + version not in parameters:
            raise BundleError(
                f"Triton's config of {name} has no manifest for version {version}; "
                "python -m export.triton writes it"
            )
        try:
            yield Manifest.model_validate_json(parameters[_PARAMETER + version].string_value), version
        except ValidationError as error:
            raise BundleError(f"the manifest in Triton's config of {name} is wrong: {error}") from error
