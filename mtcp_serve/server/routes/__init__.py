"""The paths of the API, a file for each kind: here is only HTTP, the work is done in the rooms behind it."""

from fastapi import APIRouter
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from mtcp_serve.server.routes import batch, health, predict, stream, v2, web

_PARTS = [part.router for part in (predict, batch, stream, health, v2, web)]
router = APIRouter()
for part in _PARTS:
    router.include_router(part)


def route_of(scope: Scope) -> BaseRoute | None:
    """The route that ``scope`` asks for, if it is one of these; nothing is answered."""
    routes = (route for part in _PARTS for route in part.routes)
    return next((route for route in routes if route.matches(scope)[0] is not Match.NONE), None)
