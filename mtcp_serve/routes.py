"""The paths of the API. What each one does is in the rooms behind it; here is only HTTP."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mtcp_serve.body import FIELD, read_image
from mtcp_serve.describe import describe_model
from mtcp_serve.encoding import FORMATS
from mtcp_serve.errors import (
    DeadlineError,
    ImageTooLargeError,
    InternalError,
    InvalidImageError,
    InvalidParameterError,
    NotAcceptableError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnknownTaskError,
    UnsupportedMediaTypeError,
)
from mtcp_serve.images import FORMATS as IMAGE_FORMATS
from mtcp_serve.negotiation import choose_format
from mtcp_serve.pipeline import Size
from mtcp_serve.schemas import ErrorOut, HealthOut, ModelsOut, PredictOut
from mtcp_serve.service import Service
from mtcp_serve.threads import in_thread
from mtcp_serve.timings import Timings

router = APIRouter()


def get_service(request: Request) -> Service:
    """The running service.

    Raises:
        NotReadyError: the model is not loaded yet, or the server is shutting down.
    """
    service: Service | None = request.app.state.service
    if service is None:
        raise NotReadyError("the server is starting or shutting down")
    return service


Running = Annotated[Service, Depends(get_service)]


def _known_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"{name!r} is none of {', '.join(FORMATS)}")
    return name


def _task_list(text: str) -> str:
    if not any(name.strip() for name in text.split(",")):
        raise ValueError("name at least one task, or leave the parameter out")
    return text


class PredictQuery(BaseModel):
    """Query parameters of ``POST /predict``; one that is not here is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    tasks: Annotated[str, AfterValidator(_task_list)] | None = Field(
        default=None, description="Tasks to answer, separated by commas; all the model has by default.",
        examples=["semseg,depth"],
    )  # fmt: skip
    format: Annotated[str, AfterValidator(_known_format)] | None = Field(
        default=None,
        description="Response format; goes before the Accept header. JSON by default.",
        json_schema_extra={"enum": list(FORMATS)},
    )
    size: Size = Field(default="input", description="Maps as large as the photo, or as the model gives them.")
    model: str | None = Field(default=None, description="A loaded model; the default one by default.")


def _errors(*errors: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    return {
        error.status: {"model": ErrorOut, "description": (error.__doc__ or "").partition("\n")[0]}
        for error in errors
    }


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "string", "format": "binary", "description": "The photo."}},
    }
}
_RESPONSE_HEADERS = {
    "Server-Timing": {"description": "Milliseconds a stage.", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "Id of this request.", "schema": {"type": "string"}},
}


@router.post(
    "/predict",
    summary="One photo in, its maps out",
    description=f"The photo is the multipart field `{FIELD}` or the raw body: {', '.join(IMAGE_FORMATS)}, "
    "told apart by content. In npz every map is a member named after its task, and member `metadata` is the "
    "JSON answer, without the PNGs, as a string.",
    response_class=Response,
    responses={
        200: {
            "model": PredictOut,
            "description": "The maps.",
            "content": {FORMATS["npz"].media_type: _BINARY},
            "headers": _RESPONSE_HEADERS,
        },
        **_errors(
            InvalidImageError,
            UnknownTaskError,
            NotAcceptableError,
            ImageTooLargeError,
            UnsupportedMediaTypeError,
            InvalidParameterError,
            OverloadedError,
            InternalError,
            NotReadyError,
            DeadlineError,
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _FORM,
                "image/*": _BINARY,
                "application/octet-stream": _BINARY,
            },
        }
    },
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()], service: Running) -> Response:
    """Check everything that needs no pixel first, then read the photo and queue for the work."""
    pipeline = service.pipeline(query.model)
    form = choose_format(query.format, request.headers.get("accept"))
    names = None if query.tasks is None else [name.strip() for name in query.tasks.split(",") if name.strip()]
    tasks = pipeline.select(names)
    service.admission.check()
    data = await read_image(request, service.settings.max_bytes)
    timings = Timings()
    arrival = time.perf_counter()

    async def work() -> bytes:
        timings.add("queue", time.perf_counter() - arrival)
        prediction = await pipeline.predict(data, tasks, query.size, timings)
        return await in_thread(lambda: form.encode(prediction, pipeline.pool))

    content = await service.admission.run(work)
    headers = {"Server-Timing": timings.header(), "Vary": "Accept"}
    return Response(content, media_type=form.media_type, headers=headers)


@router.get("/models", summary="The loaded models and their tasks", responses=_errors(NotReadyError),
            response_model_exclude_none=True)  # fmt: skip
async def models(service: Running) -> ModelsOut:
    """List the loaded models."""
    return ModelsOut(
        models=[
            describe_model(pipeline.engine, default=pipeline is service.pipeline(None))
            for pipeline in service.pipelines.values()
        ]
    )


@router.get("/health/live", summary="The process runs")
async def live() -> HealthOut:
    """Answer as long as the event loop does."""
    return HealthOut(status="live")


@router.get(
    "/health/ready",
    summary="The model is loaded and warm, requests are taken",
    responses=_errors(NotReadyError),
)
async def ready(_: Running) -> HealthOut:
    """Answer 200 while requests are taken, 503 otherwise."""
    return HealthOut(status="ready")


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Send a person who opens the address in a browser to the reference."""
    return RedirectResponse("docs")
