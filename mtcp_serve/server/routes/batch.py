"""``POST /predict/batch``: several images in, a prediction or an error for each."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from mtcp_serve.errors import ImageTooLargeError, RequestError, VersionLostError
from mtcp_serve.inference.images import measure
from mtcp_serve.inference.pipeline import DenseMaps, predict
from mtcp_serve.inference.registry import Choice, Models
from mtcp_serve.inference.timings import Timings
from mtcp_serve.outputs.formats import BATCH_FORMATS, Writer
from mtcp_serve.outputs.schemas import BatchOut, ErrorDetail, ImageResult
from mtcp_serve.server.error_handlers import note
from mtcp_serve.server.negotiation import choose_format
from mtcp_serve.server.request_body import FIELD, Upload, read_images
from mtcp_serve.server.routes.dependencies import (
    BatchQuery,
    Plan,
    Running,
    handle,
    read_query,
    respond,
)
from mtcp_serve.server.routes.documentation import prediction_route
from mtcp_serve.server.routes.examples import BATCH
from mtcp_serve.server.service import Service, Turn
from mtcp_serve.utils.concurrency import in_thread, together

router = APIRouter()

_DESCRIPTION = f"""The images are the fields `{FIELD}` of a form, in order. The response is 200 as soon as the
form could be read: an image that fails gets an entry with its own `status` and `error`, and costs
the others nothing. The metadata (the JSON body, member `metadata` of npz, `metadata.json` of zip, the first
part of multipart) lists an entry for each image; the maps of the image at place 3 are members `3/TASK`.

A batch counts as one request in the queue and against the deadline. Its images and bytes are limited
(`MTCP_MAX_BATCH_IMAGES`, `MTCP_MAX_BATCH_BYTES`), and with `size=input` so are the pixels of its images
together, to those that one image may have: the image that goes beyond is answered `image_too_large`."""


@router.post(
    "/predict/batch",
    summary="Several images in, the maps of each out",
    description=_DESCRIPTION,
    **prediction_route(
        BatchOut,
        "An entry for each image.",
        BATCH,
        BATCH_FORMATS,
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "The images.",
        },
        BatchQuery,
    ),
)
async def predict_batch(
    request: Request,
    service: Running,
    query: Annotated[BatchQuery, Depends(read_query(BatchQuery))],
) -> Response:
    """Check everything that needs no pixel first, then read the images and queue for the work."""
    settings = service.settings

    def plan(query: BatchQuery, models: Models) -> Plan:
        choices = models.select(query.names(), query.model)
        accept = ", ".join(request.headers.getlist("accept"))
        form = choose_format(query.format, accept, [choice.task for choice in choices], BATCH_FORMATS)
        shown, options = query.plan(form, choices)
        return shown, form(service.pool, options)

    async def read() -> tuple[list[Upload], BatchQuery]:
        body = await read_images(
            request,
            settings.max_batch_images,
            settings.max_batch_bytes,
            service.limits.max_bytes,
            settings.max_form_fields,
        )
        whole = query.with_fields(body.fields)
        plan(whole, service.models)
        return body.images, whole

    async def work(body: tuple[list[Upload], BatchQuery], turn: Turn, models: Models) -> tuple[bytes, Writer]:
        uploads, query = body
        choices, writer = plan(query, models)
        found = await _predict_all(service, uploads, choices, query, turn.timings(len(uploads)))
        return await in_thread(partial(_write, writer, uploads, found, settings.batch_answer)), writer

    service.models.select(query.names(), query.model)  # the fields of the form may say the rest
    (content, writer), turn = await handle(request, service, read, work)
    return respond(service, content, turn, writer)


async def _predict_all(
    service: Service,
    uploads: list[Upload],
    choices: tuple[Choice, ...],
    query: BatchQuery,
    timings: list[Timings],
) -> list[DenseMaps | RequestError]:
    """Decode one image at a time, which bounds the memory, while those before it are inferred.

    They are measured first, in their order, so that it is always the same ones that have too many pixels.
    """
    left = service.limits.max_pixels
    decoding = asyncio.Lock()

    async def one(upload: Upload, times: Timings) -> DenseMaps | RequestError:
        nonlocal left
        data = bytes(upload.data)
        try:
            if query.size == "input":
                async with decoding:
                    width, height = await in_thread(partial(measure, data, service.limits))
                if width * height > left:
                    raise ImageTooLargeError(
                        f"with this image the batch has more than {service.limits.max_pixels} pixels",
                        "send fewer images per request, or ask for size=model",
                    )
                left -= width * height
            return await predict(
                data,
                choices,
                query.size,
                service.limits,
                times,
                decoding,
                query.camera(),
                refine=bool(query.refine),
            )
        except VersionLostError:
            raise  # of all images: they are inferred anew, by one version
        except RequestError as error:
            note(error)
            service.metrics.errors.labels(error.code).inc()
            return error

    return await together(one(upload, times) for upload, times in zip(uploads, timings, strict=True))


def _write(
    writer: Writer, uploads: list[Upload], found: list[DenseMaps | RequestError], old_name: bool
) -> bytes:
    field = "answer" if old_name else "response"
    results = []
    for index, (upload, outcome) in enumerate(zip(uploads, found, strict=True)):
        result = ImageResult(index=index, name=upload.name, status=200)
        if isinstance(outcome, RequestError):
            result.status, result.error = outcome.status, ErrorDetail(**outcome.body()["error"])
        else:
            setattr(result, field, writer.add(outcome, f"{index}/"))
        results.append(result)
    return writer.finish(BatchOut(results=results))
