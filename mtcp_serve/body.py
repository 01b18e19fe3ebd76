"""The photo in a request body: a multipart field or the raw body, never more of it than the limit."""

from collections.abc import AsyncGenerator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from mtcp_serve.errors import (
    EmptyImageError,
    InvalidBodyError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
)

FIELD = "image"
"""Name of the multipart field."""
_FRAMING = 64 * 1024  # bytes that multipart headers and boundaries may add
_MAX_PARTS = 16


async def read_image(request: Request, max_bytes: int) -> bytes:
    """The bytes of the photo; at most ``max_bytes`` (and some framing) are read from the connection.

    Raises:
        UnsupportedMediaTypeError: the Content-Type is not multipart/form-data, image/* or octet-stream.
        PayloadTooLargeError: Content-Length, or what has been read so far, is over the limit.
        InvalidBodyError: broken multipart, or not exactly one file in field ``image``.
        EmptyImageError: the body or the field has no bytes.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        data = await _read_form(request, max_bytes)
    elif media_type.startswith("image/") or media_type == "application/octet-stream":
        data = b"".join([chunk async for chunk in _limited(request, max_bytes)])
    else:
        raise UnsupportedMediaTypeError(
            f"cannot read Content-Type {media_type}" if media_type else "the request has no Content-Type"
        )
    if not data:
        raise EmptyImageError("the image has 0 bytes")
    return data


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The chunks of the body, as long as they do not exceed ``limit`` bytes in all."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise PayloadTooLargeError(f"the body has {announced} bytes, the limit is {limit}")
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise PayloadTooLargeError(f"the body has more than {limit} bytes, which is the limit")
        yield chunk


async def _read_form(request: Request, max_bytes: int) -> bytes:
    parser = MultiPartParser(
        request.headers,
        _limited(request, max_bytes + _FRAMING),
        max_files=_MAX_PARTS,
        max_fields=_MAX_PARTS,
        max_part_size=max_bytes,
    )
    parser.spool_max_size = max_bytes + _FRAMING  # in memory, which the limit bounds; never on disk
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "invalid framing"
        raise InvalidBodyError(f"the multipart body cannot be read: {reason}") from error
    try:
        files = form.getlist(FIELD)
        if not files:
            fields = ", ".join(sorted(form)) or "none"
            raise InvalidBodyError(f"the form has no field {FIELD!r}; its fields: {fields}")
        if len(files) > 1:
            raise InvalidBodyError(f"the form has {len(files)} fields {FIELD!r}; send one photo a request")
        upload = files[0]
        if not isinstance(upload, UploadFile):
            raise InvalidBodyError(f"field {FIELD!r} is text, not a file; give it a file name")
        data = await upload.read()
    finally:
        await form.close()
    if len(data) > max_bytes:
        raise PayloadTooLargeError(f"the image has {len(data)} bytes, the limit is {max_bytes}")
    return data
