"""``POST /predict``: one image in, its maps out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from mtcp_serve.inference.images import FORMATS as IMAGE_FORMATS
from mtcp_serve.inference.registry import Models
from mtcp_serve.outputs.formats import FORMATS, Writer
from mtcp_serve.outputs.schemas import PredictOut
from mtcp_serve.server.negotiation import choose_format
from mtcp_serve.server.request_body import FIELD, is_form, read_image
from mtcp_serve.server.routes.dependencies import (
    Plan,
    PredictQuery,
    Running,
    handle,
    read_query,
    respond,
    write_prediction,
)
from mtcp_serve.server.routes.documentation import BINARY, prediction_route
from mtcp_serve.server.routes.examples import PREDICT
from mtcp_serve.server.service import Turn

router = APIRouter()

_FORMATS = "\n".join(f"- `{name}`, `{form.media_type}`: {form.description}" for name, form in FORMATS.items())


@router.post(
    "/predict",
    summary="One image in, its maps out",
    description=f"The image is the multipart field `{FIELD}` or the raw body: {', '.join(IMAGE_FORMATS)}, "
    "told apart by content. The parameters may be fields of the form as well. Response formats:\n\n"
    f"{_FORMATS}",
    **prediction_route(
        PredictOut,
        "The maps.",
        PREDICT,
        FORMATS,
        {"type": "string", "format": "binary", "description": "The image."},
        PredictQuery,
        {"image/*": BINARY, "application/octet-stream": BINARY},
    ),
)
async def predict_one(
    request: Request,
    service: Running,
    query: Annotated[PredictQuery, Depends(read_query(PredictQuery))],
) -> Response:
    """Check everything that needs no pixel first, then read the image and queue for the work."""
    settings = service.settings

    def plan(query: PredictQuery, models: Models) -> Plan:
        choices = models.select(query.names(), query.model)
        accept = ", ".join(request.headers.getlist("accept"))
        form = choose_format(query.format, accept, [choice.task for choice in choices])
        shown, options = query.plan(form, choices)
        return shown, form(service.pool, options)

    async def read() -> tuple[bytes, PredictQuery]:
        body = await read_image(request, settings.max_bytes, settings.max_form_fields)
        whole = query.with_fields(body.fields)
        if is_form(request):
            plan(whole, service.models)
        return body.image, whole

    async def work(body: tuple[bytes, PredictQuery], turn: Turn, models: Models) -> tuple[bytes, Writer]:
        data, query = body
        choices, writer = plan(query, models)
        (timings,) = turn.timings(1)
        return await write_prediction(service, data, choices, query, writer, timings), writer

    if is_form(request):
        service.models.select(query.names(), query.model)  # its fields may say the rest
    else:
        plan(query, service.models)
    (content, writer), turn = await handle(request, service, read, work)
    return respond(service, content, turn, writer)
