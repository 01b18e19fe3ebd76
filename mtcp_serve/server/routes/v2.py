"""``/v2``: the Open Inference Protocol over REST, with the binary tensor extension."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel

from mtcp_serve.errors import (
    DeadlineError,
    InternalError,
    InvalidBodyError,
    InvalidParameterError,
    NotReadyError,
    OverloadedError,
    RequestError,
    TooManyImagesError,
    UnknownModelError,
    UnsupportedError,
    UnsupportedMediaTypeError,
    UploadTimeoutError,
)
from mtcp_serve.inference.registry import Models
from mtcp_serve.server.oip import model as protocol
from mtcp_serve.server.oip.infer import camera_of, images_of, infer, tasks_of
from mtcp_serve.server.oip.rest import HEADER_LENGTH, parse, write
from mtcp_serve.server.request_body import read_body
from mtcp_serve.server.responses import PacedResponse
from mtcp_serve.server.routes.dependencies import Leased, Running, handle
from mtcp_serve.server.routes.documentation import BINARY
from mtcp_serve.server.service import Turn
from mtcp_serve.utils.concurrency import in_thread

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

Name = Annotated[str, Path(description="The model.", examples=["mtcp-lite"])]


class ProtocolError(BaseModel):
    """The body of an error under ``/v2``: the protocol wants a string."""

    error: str


def _errors(*errors: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    return {
        error.status: {"model": ProtocolError, "description": (error.__doc__ or "").partition("\n")[0]}
        for error in errors
    }


_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string", "examples": ["image"]},
        "datatype": {"type": "string", "examples": ["UINT8"]},
        "shape": {"type": "array", "items": {"type": "integer"}, "examples": [[1, 288, 384, 3]]},
        "data": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
        "parameters": {
            "type": "object",
            "description": "The camera of the images, in pixels as they are sent: one of these, or none. The "
            "parameters of the response say which was taken: intrinsics, and camera_source.",
            "properties": {
                "fov_x": {"type": ["number", "string"], "examples": [60]},
                "focal_px": {"type": ["number", "string"], "examples": [333]},
                "intrinsics": {"type": "string", "examples": ["333,333,191.5,143.5"]},
            },
        },
    },
}
_MODEL_ERRORS = _errors(UnknownModelError, InvalidParameterError, NotReadyError)


@router.get("", summary="The server", responses=_errors(NotReadyError))
async def server() -> dict[str, Any]:
    """Name, version and extensions."""
    return protocol.SERVER


@router.get("/health/live", summary="The process runs")
async def live() -> dict[str, bool]:
    """Answer 200 as long as the event loop does."""
    return {"live": True}


@router.get("/health/ready", summary="Requests are taken", responses=_errors(NotReadyError))
async def ready(service: Running) -> dict[str, bool]:
    """Answer 200 while requests are welcome, 503 otherwise."""
    if service.unready is not None:
        raise service.unready
    return {"ready": True}


@router.post("/repository/index", summary="The models", responses=_errors(NotReadyError))
async def index(models: Leased) -> list[dict[str, Any]]:
    """List the models, as Triton does."""
    return protocol.index(models)


@router.get("/models/stats", summary="What the models have done", responses=_errors(NotReadyError))
async def all_statistics(models: Leased) -> dict[str, Any]:
    """Count inferences, batches and their time, as Triton does."""
    return {"model_stats": [protocol.statistics(batcher) for batcher in models]}


@router.get("/models/{name}/stats", summary="What a model has done", responses=_MODEL_ERRORS)
@router.get("/models/{name}/versions/{version}/stats", include_in_schema=False)
async def statistics(models: Leased, name: Name, version: str = "") -> dict[str, Any]:
    """Count inferences, batches and their time, as Triton does."""
    return {"model_stats": [protocol.statistics(protocol.find(models, name, version))]}


@router.get("/models/{name}/ready", summary="The model is ready", responses=_MODEL_ERRORS)
@router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
async def model_ready(models: Leased, name: Name, version: str = "") -> dict[str, Any]:
    """Answer 200 if there is such a model."""
    return {"name": protocol.find(models, name, version).engine.manifest.name, "ready": True}


@router.get("/models/{name}", summary="Inputs and outputs of a model", responses=_MODEL_ERRORS)
@router.get("/models/{name}/versions/{version}", include_in_schema=False)
async def metadata(models: Leased, name: Name, version: str = "") -> dict[str, Any]:
    """Describe the tensors."""
    return protocol.metadata(protocol.find(models, name, version).engine.manifest)


@router.get("/models/{name}/config", summary="Triton's configuration of a model", responses=_MODEL_ERRORS)
@router.get("/models/{name}/versions/{version}/config", include_in_schema=False)
async def config(models: Leased, service: Running, name: Name, version: str = "") -> dict[str, Any]:
    """Describe the model as Triton would; the manifest is among the parameters."""
    manifest = protocol.find(models, name, version).engine.manifest
    return protocol.config(manifest, service.settings.max_batch_images)


@router.post(
    "/models/{name}/infer",
    summary="Maps of images of the model's size",
    response_class=Response,
    responses={
        200: {
            "description": "The maps: JSON, or JSON followed by the tensors.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/octet-stream": BINARY,
            },
        },
        **_errors(
            InvalidBodyError,
            UnknownModelError,
            UploadTimeoutError,
            TooManyImagesError,
            UnsupportedMediaTypeError,
            InvalidParameterError,
            OverloadedError,
            InternalError,
            UnsupportedError,
            NotReadyError,
            DeadlineError,
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _REQUEST},
                "application/octet-stream": BINARY,
            },
        }
    },
)
@router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
async def model_infer(
    request: Request,
    service: Running,
    name: Name,
    version: str = "",
    header_length: Annotated[
        str | None, Header(alias=HEADER_LENGTH, description="Bytes of JSON before the tensors.")
    ] = None,
) -> Response:
    """Infer; the images share micro-batches with those of every other request."""
    settings = service.settings
    protocol.find(service.models, name, version)  # before the body is read

    async def work(body: bytes, turn: Turn, models: Models) -> tuple[bytes, int | None]:
        batcher = protocol.find(models, name, version)
        model = batcher.engine.manifest
        most = settings.max_batch_images * 3 * model.input.height * model.input.width
        message, tensors = await in_thread(partial(parse, body, header_length, most))
        camera = camera_of(message.parameters, model)
        tasks = tasks_of(batcher, [output.name for output in message.outputs])
        images = await in_thread(partial(images_of, batcher, tensors, settings.max_batch_images))
        maps = await infer(batcher, images, tasks, turn.timings(len(images)))
        return await in_thread(partial(write, message, model, tasks, maps, camera))

    (content, json_length), _ = await handle(
        request, service, partial(read_body, request, settings.max_batch_bytes), work
    )
    headers = {"Content-Type": "application/json"}
    if json_length is not None:
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(json_length)}
    return PacedResponse(content, headers, service.sending())


@router.post("/repository/models/{name}/load", include_in_schema=False)
@router.post("/repository/models/{name}/unload", include_in_schema=False)
async def repository(name: str) -> Response:
    """Refuse what clients may not do."""
    raise UnsupportedError(*protocol.REPOSITORY)


@router.api_route("/systemsharedmemory/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/cudasharedmemory/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/trace/setting", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/models/{name}/trace/setting", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/logging", methods=["GET", "POST"], include_in_schema=False)
async def unsupported(request: Request) -> Response:
    """Refuse by name what Triton has beside the protocol."""
    raise UnsupportedError(f"this server has no {request.url.path.removeprefix('/v2/')}")
