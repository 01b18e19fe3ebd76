"""The photo in a request body: a multipart field or the raw body, never more of it than the limit."""

from collections.abc import AsyncGenerator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mtcp_serve.errors import (
    EmptyImageError,
    InvalidBodyError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
)

FIELD = "image"
"""Name of the multipart field."""
_FRAMING = 64 * 1024  # bytes that multipart headers and boundaries may add


async def read_image(request: Request, max_bytes: int) -> bytes:
    """The bytes of the photo; at most ``max_bytes`` (and some framing) are read from the connection.

    Raises:
        UnsupportedMediaTypeError: the Content-Type is not multipart/form-data, image/* or octet-stream.
        PayloadTooLargeError: Content-Length, or what has been read so far, is over the limit.
        InvalidBodyError: broken multipart, or not exactly one field ``image``.
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
    form = _Form(request.headers["content-type"])
    try:
        parser = MultipartParser(
            form.boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_part_data": form.on_part_data,
                "on_end": form.on_end,
            },
        )
        async for chunk in _limited(request, max_bytes + _FRAMING):
            parser.write(chunk)
            if len(form.image) > max_bytes:
                raise PayloadTooLargeError(f"the image has more than {max_bytes} bytes, which is the limit")
    except FormParserError as error:
        raise InvalidBodyError(f"the multipart body cannot be read: {error}") from error
    if not form.complete:
        raise InvalidBodyError("the multipart body ends early, its last boundary is missing")
    count = form.names.count(FIELD)
    if count == 0:
        fields = ", ".join(sorted(form.names)) or "none"
        raise InvalidBodyError(f"the form has no field {FIELD!r}; its fields: {fields}")
    if count > 1:
        raise InvalidBodyError(f"the form has {count} fields {FIELD!r}; send one photo a request")
    return bytes(form.image)


class _Form:
    """What a multipart body holds: the names of its parts and the bytes of those called ``image``.

    Everything stays in memory, where the byte limit bounds it; nothing is written to disk.
    """

    def __init__(self, content_type: str) -> None:
        _, parameters = parse_options_header(content_type)
        if not parameters.get(b"boundary"):
            raise InvalidBodyError("the Content-Type names no multipart boundary")
        self.boundary = parameters[b"boundary"]
        self.names: list[str] = []
        self.image = bytearray()
        self.complete = False
        self._header = bytearray()
        self._value = bytearray()

    def on_part_begin(self) -> None:
        self.names.append("")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, parameters = parse_options_header(bytes(self._value))
            self.names[-1] = parameters.get(b"name", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.names[-1] == FIELD:
            self.image += data[start:end]

    def on_end(self) -> None:
        self.complete = True
