"""The protocol over gRPC. Imported only when a port is set; needs ``mtcp-serve[triton]``."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from mtcp_serve.bundle.manifest import Manifest, TaskSpec
from mtcp_serve.errors import InvalidBodyError, NotFoundError, RequestError, SettingsError, UnsupportedError
from mtcp_serve.inference.camera import Camera
from mtcp_serve.inference.registry import Models
from mtcp_serve.kinds.base import Map
from mtcp_serve.server.error_handlers import note
from mtcp_serve.server.oip import model as protocol
from mtcp_serve.server.oip.grpc_calls import Calls, Read, text
from mtcp_serve.server.oip.infer import (
    HINT,
    Tensor,
    camera_of,
    check_parameters,
    images_of,
    infer,
    say_camera,
    tasks_of,
)
from mtcp_serve.server.security.api_keys import ApiKeys
from mtcp_serve.server.security.tls import Tls
from mtcp_serve.server.service import CLOSING_S, Service, Turn
from mtcp_serve.utils.concurrency import in_thread

_FRAMING = 64 * 1024


@asynccontextmanager
async def serve_grpc(service: Service, keys: ApiKeys) -> AsyncIterator[None]:
    """Answer gRPC on the settings' port while the block lasts; then finish what was accepted.

    Raises:
        SettingsError: the port is taken, or the certificate or its key cannot be used.
    """
    settings = service.settings
    tls = Tls.of(settings)
    server = grpc.aio.server(
        interceptors=[Calls(service, keys, vars(Servicer).keys())],
        maximum_concurrent_rpcs=settings.max_concurrent_uploads + settings.concurrency + settings.queue_size,
        options=[
            ("grpc.max_receive_message_length", settings.max_batch_bytes + _FRAMING),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", round(1000 * settings.grpc_keepalive_s)),
            ("grpc.keepalive_timeout_ms", round(1000 * settings.grpc_keepalive_timeout_s)),
        ],
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(service), server)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        if tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, _credentials(tls, service))
    except RuntimeError as error:
        raise SettingsError(f"gRPC cannot listen on {address}: {error}") from error
    await server.start()
    stopping: list[asyncio.Task[None]] = []

    async def leave() -> None:
        """Tell every client that its connection ends: it opens another, which a balancer sends elsewhere."""
        stopping.append(asyncio.create_task(server.stop(grace=settings.drain_s + CLOSING_S)))
        await asyncio.sleep(0)  # so that it has begun before new requests are refused

    service.leavers.append(leave)
    try:
        yield
    finally:
        await server.stop(grace=CLOSING_S)
        await asyncio.gather(*stopping)


def _credentials(tls: Tls, service: Service) -> grpc.ServerCredentials:
    """What ``tls`` says, and after a reload what `Service.tls` does, for each connection that comes."""
    in_use = tls

    def configuration() -> Any:
        key, chain, authorities = in_use.for_grpc()
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)

    def renewed() -> Any:
        nonlocal in_use
        if service.tls is None or service.tls is in_use:
            return None
        in_use = service.tls
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), renewed, tls.client_ca is not None)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The calls of the protocol; those that are not here are answered UNIMPLEMENTED.

    A `RequestError` that one raises becomes the status of the call (`mtcp_serve.server.oip.grpc_calls`).
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's names
        """Whether the process runs."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether requests are taken."""
        return service_pb2.ServerReadyResponse(ready=self._service.unready is None)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Name, version and extensions."""
        return service_pb2.ServerMetadataResponse(**protocol.SERVER)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether there is such a model."""
        try:
            protocol.find(self._service.models, request.name, request.version)
        except NotFoundError:
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Inputs and outputs of a model."""
        manifest = self._manifest(request)
        return service_pb2.ModelMetadataResponse(**protocol.metadata(manifest))

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Triton's configuration of a model, the manifest among its parameters."""
        described = protocol.config(self._manifest(request), self._service.settings.max_batch_images)
        config = json_format.ParseDict(described, model_config_pb2.ModelConfig())
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What a model has done, or every model for an empty name."""
        models = self._service.models
        found = [protocol.find(models, request.name, request.version)] if request.name else [*models]
        answer = {"model_stats": [protocol.statistics(batcher) for batcher in found]}
        return json_format.ParseDict(answer, service_pb2.ModelStatisticsResponse())

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refused: see `mtcp_serve.server.oip.model.REPOSITORY`."""
        raise UnsupportedError(*protocol.REPOSITORY)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refused: see `mtcp_serve.server.oip.model.REPOSITORY`."""
        raise UnsupportedError(*protocol.REPOSITORY)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The models."""
        return service_pb2.RepositoryIndexResponse(models=protocol.index(self._service.models))

    async def ModelInfer(self, read: Read, context: Any) -> Any:  # noqa: N802
        """Maps of images; a cancelled call leaves the queue. ``read`` returns the request."""
        return await self._infer(read)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """`ModelInfer` for one request after the other; an error is a response and ends nothing."""
        async for request in requests:

            async def read(request: Any = request) -> Any:
                return request

            try:
                answer = await self._infer(read)
            except RequestError as error:
                note(error)
                self._service.metrics.errors.labels(error.code).inc()
                yield service_pb2.ModelStreamInferResponse(error_message=text(error))
            else:
                yield service_pb2.ModelStreamInferResponse(infer_response=answer)

    def _manifest(self, request: Any) -> Manifest:
        return protocol.find(self._service.models, request.name, request.version).engine.manifest

    async def _infer(self, read: Read) -> Any:
        service = self._service

        async def work(
            request: Any, turn: Turn, models: Models
        ) -> tuple[Any, Manifest, list[TaskSpec], list[Map], Camera]:
            check_parameters(
                request.parameters, *(each.parameters for each in [*request.inputs, *request.outputs])
            )
            batcher = protocol.find(models, request.model_name, request.model_version)
            camera = camera_of(_values(request.parameters), batcher.engine.manifest)
            tasks = tasks_of(batcher, [output.name for output in request.outputs])
            take = partial(images_of, batcher, _tensors(request), service.settings.max_batch_images)
            images = await in_thread(take)  # the numbers of ``contents`` are copied one by one
            maps = await infer(batcher, images, tasks, turn.timings(len(images)))
            return request, batcher.engine.manifest, tasks, maps, camera

        (request, manifest, tasks, maps, camera), _ = await service.handle(read, work)
        return service_pb2.ModelInferResponse(
            model_name=manifest.name,
            model_version=manifest.version,
            id=request.id,
            parameters={
                name: service_pb2.InferParameter(string_param=value)
                for name, value in say_camera(camera).items()
            },
            outputs=[
                {"name": task.output, "datatype": protocol.datatype(task), "shape": values.shape}
                for task, values in zip(tasks, maps, strict=True)
            ],
            raw_output_contents=[np.ascontiguousarray(values).tobytes() for values in maps],
        )


def _values(parameters: Any) -> dict[str, object]:
    """The parameters of a message as plain values."""
    return {
        name: getattr(parameter, kind)
        for name, parameter in parameters.items()
        if (kind := parameter.WhichOneof("parameter_choice"))
    }


def _tensors(request: Any) -> list[Tensor]:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidBodyError(
            f"the request has {len(request.inputs)} inputs and {len(raw)} raw contents", HINT
        )

    def read(index: int) -> Callable[[], NDArray[np.uint8]]:
        if raw:
            return lambda: np.frombuffer(raw[index], np.uint8)
        return lambda: _contents(request.inputs[index].contents.uint_contents)

    return [
        Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), read(index))
        for index, tensor in enumerate(request.inputs)
    ]


def _contents(values: Any) -> NDArray[np.uint8]:
    wide = np.asarray(values, np.int64)
    if wide.size and wide.max() > 255:
        raise InvalidBodyError("uint_contents has values above 255", HINT)
    return wide.astype(np.uint8)
