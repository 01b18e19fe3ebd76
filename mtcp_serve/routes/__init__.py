"""The paths of the API, a file for each kind: here is only HTTP, the work is done in the rooms behind it."""

from fastapi import APIRouter

from mtcp_serve.routes import batch, info, page, predict, v2

router = APIRouter()
for part in (predict, batch, info, v2, page):
    router.include_router(part.router)
