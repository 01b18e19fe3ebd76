"""What the server is and how it does: models, health, metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from mtcp_serve.errors import NotReadyError
from mtcp_serve.outputs.metadata import describe_models
from mtcp_serve.outputs.schemas import HealthOut, ModelsOut
from mtcp_serve.server.routes.dependencies import Running
from mtcp_serve.server.routes.documentation import error_responses
from mtcp_serve.server.routes.examples import MODELS

router = APIRouter()

_NOT_READY = error_responses(NotReadyError)


@router.get(
    "/models",
    summary="The loaded models and their tasks",
    responses={200: {"content": {"application/json": {"example": MODELS}}}, **_NOT_READY},
    response_model_exclude_none=True,
)
async def models(service: Running) -> ModelsOut:
    """List the loaded models."""
    return describe_models(service.models)


@router.get("/health/live", summary="The process runs")
async def live() -> HealthOut:
    """Answer as long as the event loop does."""
    return HealthOut(status="live")


@router.get(
    "/health/ready", summary="The models are loaded and warm, requests are taken", responses=_NOT_READY
)
async def ready(service: Running) -> HealthOut:
    """Answer 200 while requests are welcome; 503 while loading, shutting down, or with every slot stuck."""
    if service.unready is not None:
        raise service.unready
    return HealthOut(status="ready")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request) -> Response:
    """Requests, errors by code, queue, uploads, responses, batches, and seconds by stage."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(request.app.state.metrics.registry), headers={"Content-Type": content_type})
