"""``POST /predict``: one photo in, its maps out."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from mtcp_serve.inference.images import FORMATS as IMAGE_FORMATS
from mtcp_serve.inference.pipeline import predict
from mtcp_serve.outputs.formats import FORMATS
from mtcp_serve.outputs.schemas import PredictOut
from mtcp_serve.server.negotiation import choose_format
from mtcp_serve.server.request_body import FIELD, read_image
from mtcp_serve.server.routes.dependencies import (
    BINARY,
    PREDICT_ERRORS,
    RESPONSE_HEADERS,
    Leased,
    PredictQuery,
    Running,
    form_schema,
    given_once,
    handle,
    respond,
)
from mtcp_serve.server.routes.examples import PREDICT
from mtcp_serve.server.service import Turn
from mtcp_serve.utils.concurrency import in_thread

router = APIRouter()

_FORMATS = "\n".join(f"- `{name}`, `{form.media_type}`: {form.description}" for name, form in FORMATS.items())


@router.post(
    "/predict",
    summary="One photo in, its maps out",
    description=f"The photo is the multipart field `{FIELD}` or the raw body: {', '.join(IMAGE_FORMATS)}, "
    f"told apart by content. Response formats:\n\n{_FORMATS}",
    response_class=Response,
    dependencies=[Depends(given_once)],
    responses={
        200: {
            "model": PredictOut,
            "description": "The maps.",
            "content": {form.media_type: BINARY for form in FORMATS.values()}
            | {"application/json": {"example": PREDICT}},
            "headers": RESPONSE_HEADERS,
        },
        **PREDICT_ERRORS,
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": form_schema(
                    {"type": "string", "format": "binary", "description": "The photo."}
                ),
                "image/*": BINARY,
                "application/octet-stream": BINARY,
            },
        }
    },
)
async def predict_one(
    request: Request, query: Annotated[PredictQuery, Query()], service: Running, models: Leased
) -> Response:
    """Check everything that needs no pixel first, then read the photo and queue for the work."""
    choices = models.select(query.names(), query.model)
    accept = ", ".join(request.headers.getlist("accept"))
    form = choose_format(query.format, accept, [choice.task for choice in choices])
    writer = form(service.pool, query.options(form))
    shown = form.used([choice.task for choice in choices])
    choices = tuple(choice for choice in choices if choice.task in shown)
    settings = service.settings

    async def work(data: bytes, turn: Turn) -> bytes:
        (timings,) = turn.timings(1)
        prediction = await predict(
            data,
            choices,
            query.size,
            service.limits,
            timings,
            camera=query.camera(),
            keep_photo=form.needs_photo,
        )
        return await in_thread(lambda: writer.finish(writer.add(prediction)))

    content, turn = await handle(
        request, service, partial(read_image, request, settings.max_bytes, settings.max_form_fields), work
    )
    return respond(service, content, turn, writer)
