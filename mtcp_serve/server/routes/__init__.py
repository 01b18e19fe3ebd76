"""The paths of the API, a file for each kind: here is only HTTP, the work is done in the rooms behind it."""

from fastapi import APIRouter

from mtcp_serve.server.routes import batch, health, predict, stream, v2, web

router = APIRouter()
for part in (predict, batch, stream, health, v2, web):
    router.include_router(part.router)
