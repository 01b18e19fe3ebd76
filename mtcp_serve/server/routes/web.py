"""``GET /``: the demo page, from the files in the folder ``server/web``, and the color tables it asks for.

Starlette's ``StaticFiles`` was weighed: it takes a script's type from the machine's registry, which may call
it text/plain, and then the page does not run; its ETags are made of times, so that replicas behind one
balancer disagree; it sends no ``Cache-Control``, asks the disk each time, and its 404 is not one of the
API's. What would have to be overridden is as long as this.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response

from mtcp_serve.errors import NotFoundError

router = APIRouter()

_TYPES: Final = {  # not those of the machine's registry, which may call a script text/plain
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """The file, or 304 where the client has it; kept by caches, but asked for again each time."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match", "").replace("W/", "")
        if self.etag in (part.strip() for part in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers={**headers, "Content-Type": self.media_type})


def _load() -> dict[str, _File]:
    found = {}
    folder = files("mtcp_serve.server").joinpath("web")
    colors = files("mtcp_serve.kinds").joinpath("colormaps.json")
    for entry in (*sorted(folder.iterdir(), key=lambda entry: entry.name), colors):
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            content = entry.read_bytes()
            found[entry.name] = _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


_FILES: Final = _load()


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page."""
    return _FILES["index.html"].answer(request)


@router.get("/web/{name}", include_in_schema=False)
async def page_file(request: Request, name: str) -> Response:
    """A script, style sheet or image of the page.

    Raises:
        NotFoundError: the page has no such file.
    """
    if name not in _FILES:
        raise NotFoundError(f"the page has no file {name!r}")
    return _FILES[name].answer(request)
