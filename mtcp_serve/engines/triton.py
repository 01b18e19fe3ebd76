"""The Triton engine: the network runs in one or more Triton servers, over gRPC.

Imported only when endpoints are set; needs ``mtcp-serve[triton]``. The models must have been written by
``export.triton``, which puts the manifest of each version into the model's config.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

from mtcp_serve.bundle.manifest import IMAGE_TENSOR, Manifest, TaskSpec
from mtcp_serve.bundle.triton_config import (
    WRITE_AGAIN,
    check_tensors,
    newest,
    parameter,
    read_manifest,
)
from mtcp_serve.errors import (
    BundleError,
    EngineLostError,
    InternalError,
    OverloadedError,
    VersionLostError,
)
from mtcp_serve.kinds.base import Map

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
_ASK_S = 5.0
_START_S = 10.0
_LOST = ("UNAVAILABLE", "CANCELLED", "NOT_FOUND", "DEADLINE_EXCEEDED")
_log = logging.getLogger(__name__)


class Endpoint:
    """A Triton server, and whether it answered last."""

    def __init__(self, address: str, model: str, version: str, authorities: Path | None) -> None:
        self.address = address
        self.up = True
        self.client = AsyncClient(**_channel(address, authorities))
        self._model = model
        self._version = version
        self._probing: asyncio.Task[None] | None = None

    def lost(self, error: InferenceServerException) -> None:
        """Take it out of the rotation, and ask it until it is back."""
        if self.up:
            _log.warning(
                "Triton at %s does not answer for %s %s: %s",
                self.address,
                self._model,
                self._version,
                error.message(),
            )
            self.up = False
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())

    async def without_version(self) -> bool:
        """Whether it answers, and says that it has not this version of the model."""
        try:
            ready = await self.client.is_model_ready(self._model, self._version, client_timeout=_ASK_S)
        except InferenceServerException:
            return False
        return not ready

    async def close(self) -> None:
        """Close the connection."""
        if self._probing is not None:
            self._probing.cancel()
        await self.client.close()

    async def _probe(self) -> None:
        while not self.up:
            await asyncio.sleep(_PROBE_S)
            try:
                self.up = await self.client.is_model_ready(
                    self._model, self._version, client_timeout=_PROBE_S
                )
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
    def load(
        cls, addresses: Sequence[str], authorities: Path | None = None, max_batch_size: int = 1
    ) -> list[Self]:
        """An engine for every model with a manifest, of the first endpoint that answers and has one loaded.

        An address ``grpcs://HOST:PORT`` means TLS, where ``authorities`` (a PEM file) are trusted, or gRPC's.

        Raises:
            BundleError: there is none, none of its models has a manifest, one is wrong or not that of the
                model, or Triton takes no batches of ``max_batch_size``; ``authorities`` cannot be read.
        """
        if authorities is not None and not authorities.is_file():
            raise BundleError(f"{authorities}, whose authorities are to be trusted, is not a file")
        faults = []
        for address in addresses:
            client = InferenceServerClient(**_channel(address, authorities))
            try:
                found = _models(client, f"Triton {address}")
            except InferenceServerException as error:
                faults.append(f"{address}: {error.message()}")
                continue
            finally:
                client.close()
            if not found:
                faults.append(f"{address} has no model loaded")
                continue
            for model in found:
                if model.max_batch < max_batch_size:
                    raise BundleError(
                        f"{model.manifest.name} at Triton {address} takes at most {model.max_batch} images "
                        f"at a time, max_batch_size is {max_batch_size}: lower it (Triton makes batches too) "
                        f"or write the repository with --max-batch {max_batch_size}"
                    )
            return [cls(addresses, model.manifest, model.version, authorities) for model in found]
        raise BundleError(f"no Triton answers with a model ({'; '.join(faults)})")

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        """See `mtcp_serve.engines.base.Engine.infer`.

        Raises:
            VersionLostError: no endpoint has the version, and at least one says so.
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
        without = await asyncio.gather(*(endpoint.without_version() for endpoint in self._endpoints))
        raise (VersionLostError if any(without) else EngineLostError)(
            f"no Triton server answers with version {self._version} of {self.manifest.name} "
            f"({', '.join(self._addresses)})"
        )

    async def close(self) -> None:
        """See `mtcp_serve.engines.base.Engine.close`."""
        for endpoint in self._endpoints:
            await endpoint.close()

    def _rotation(self) -> list[Endpoint]:
        """Every endpoint once: first those that answer, each time beginning with the next one."""
        if not self._endpoints:  # made here: they belong to the running event loop
            self._endpoints = [
                Endpoint(address, self.manifest.name, self._version, self._authorities)
                for address in self._addresses
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


@dataclass(frozen=True)
class _Found:
    """A model of a Triton: the manifest of its newest version, and the largest batch that it takes."""

    manifest: Manifest
    version: str
    max_batch: int


def _models(client: InferenceServerClient, server: str) -> list[_Found]:
    """Every model that is ready on ``server`` and was written by ``export.triton``; none where none is ready.

    Raises:
        BundleError: no model has a manifest, or one is wrong or not that of the model.
    """
    index = client.get_model_repository_index(client_timeout=_START_S)
    names = sorted({model.name for model in index.models if model.state == "READY"})
    found = []
    for name in names:
        config = client.get_model_config(name, client_timeout=_START_S).config
        if not any(key.startswith(parameter("")) for key in config.parameters):
            _log.warning("%s at %s has no manifest, it is left out", name, server)
            continue
        metadata = client.get_model_metadata(name, client_timeout=_START_S)
        version = newest(metadata.versions)
        manifest = read_manifest(config, version, server)
        check_tensors(manifest, metadata, server)
        found.append(_Found(manifest, version, config.max_batch_size))
    if names and not found:
        raise BundleError(f"no model at {server} has a manifest ({', '.join(names)}): {WRITE_AGAIN}")
    return found
