"""The ASGI application: ``uvicorn --factory mtcp_serve.server.app:create_app``."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from mtcp_serve._version import __version__
from mtcp_serve.engines.base import Engine
from mtcp_serve.errors import RequestError
from mtcp_serve.server.error_handlers import on_http_exception, on_request_error, on_validation_error
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.middleware import AnswerFailures, AnswerHead, EndConnections, RequestContext
from mtcp_serve.server.routes import route_of, router
from mtcp_serve.server.security.api_keys import ApiKeys
from mtcp_serve.server.security.auth import RequireKey
from mtcp_serve.server.security.cors import CORS
from mtcp_serve.server.security.headers import SecurityHeaders
from mtcp_serve.server.security.openapi import describe_keys
from mtcp_serve.server.service import Service
from mtcp_serve.server.settings import Settings
from mtcp_serve.utils.concurrency import in_thread

if TYPE_CHECKING:
    from mtcp_serve.server.tracing import Tracing

_DESCRIPTION = r"""One image, one request, several dense maps: class labels, depth, surface normals, saliency.

```
curl -F image=@image.jpg 'http://127.0.0.1:8000/predict?tasks=depth' -o maps.json
curl --data-binary @image.jpg -H 'Content-Type: image/jpeg' \
    'http://127.0.0.1:8000/predict?format=npz' -o maps.npz
```

Every error has the body `{"error": {"code", "message", "hint"}}`."""


def create_app(settings: Settings | None = None, engines: Sequence[Engine] | None = None) -> FastAPI:
    """The application for ``settings`` (by default, those of the environment).

    It serves ``engines``, or loads the bundles that the settings name when it starts; a bundle that cannot
    be served stops the start with a `BundleError`.

    Raises:
        SettingsError: a file of API keys cannot be used.
    """
    settings = settings or Settings()
    metrics = Metrics()
    keys = ApiKeys(settings)
    tracing = _tracing() if settings.traces else None
    grpc_server = _grpc_server() if settings.grpc_port else _no_grpc
    telemetry: dict[str, Any] = {} if tracing is None else {"telemetry": tracing.config}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loaded = load_engines(settings) if engines is None else engines
        async with Service(settings, loaded, metrics) as service, grpc_server(service, keys):
            if tracing is not None:
                service.observers.append(tracing.image)
            app.state.service = service
            yield
            app.state.service = None
        if tracing is not None:
            await in_thread(tracing.close)

    app = FastAPIOffline(
        redoc_url=None,
        title="mtcp-serve",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        swagger_ui_parameters={"validatorUrl": None},
        **telemetry,
    )
    app.state.service = None
    app.state.metrics = metrics
    app.state.keys = keys
    app.state.cors_origin = settings.cors_origin
    app.include_router(router)
    if keys:
        app.openapi = partial(describe_keys, app.openapi)  # type: ignore[method-assign]
    _add_middleware(app, settings, keys, metrics)
    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    return app


def _add_middleware(app: FastAPI, settings: Settings, keys: ApiKeys, metrics: Metrics) -> None:
    """The middleware, from the inside out: the metrics see every response, every response has the headers.

    A preflight request carries no key, so CORS comes before auth; refusals carry CORS headers, so that
    the page that asked can read why.
    """
    app.add_middleware(AnswerFailures)
    app.add_middleware(AnswerHead)
    if keys:
        app.add_middleware(RequireKey, keys=keys, metrics=metrics)
    if settings.cors_origin:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origin, **CORS)
    app.add_middleware(RequestContext, metrics=metrics, route_of=route_of)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(
        EndConnections, ending=lambda: app.state.service is not None and app.state.service.ending
    )


def _no_grpc(service: Service, keys: ApiKeys) -> AbstractAsyncContextManager[None]:
    return nullcontext()


def _tracing() -> "Tracing":
    from mtcp_serve.server.tracing import Tracing

    return Tracing()


def _grpc_server() -> Callable[[Service, ApiKeys], AbstractAsyncContextManager[None]]:
    from mtcp_serve.server.oip.grpc_server import serve_grpc

    return serve_grpc
