"""The images in a request body: multipart fields or the raw body, never more of it than the limits."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mtcp_serve.errors import (
    EmptyImageError,
    InvalidBodyError,
    PayloadTooLargeError,
    TooManyImagesError,
    UnsupportedMediaTypeError,
)

FIELD = "image"
"""Name of the multipart field."""
_FORM = "multipart/form-data"
_FRAMING = 64 * 1024  # bytes that multipart headers, boundaries and parameters may add
_VALUE = 2**16  # bytes that a parameter may have: some 3,000 distances


@dataclass
class Upload:
    """An image of a form: its file name, and its bytes, of which no more than one over the limit are kept."""

    name: str | None
    data: bytes | bytearray = field(default_factory=bytearray)


@dataclass
class Body:
    """What a request carries: its images, and the fields of the form that are parameters."""

    images: list[Upload]
    fields: list[tuple[str, str]] = field(default_factory=list)

    @property
    def image(self) -> bytes:
        """The bytes of the one image."""
        return bytes(self.images[0].data)


async def read_image(request: Request, max_bytes: int, max_fields: int) -> Body:
    """The one image; at most ``max_bytes`` (and some framing) are read from the connection.

    Raises:
        UnsupportedMediaTypeError: the Content-Type is not multipart/form-data, image/* or octet-stream, or
            the body is compressed.
        PayloadTooLargeError: Content-Length, or what has been read so far, is over the limit.
        InvalidBodyError: broken multipart, or not exactly one field ``image``.
        EmptyImageError: the body or the field has no bytes.
    """
    media_type = _media_type(request)
    if media_type == _FORM:
        body = await _read_form(request, max_bytes + _FRAMING, max_bytes, 1, max_fields)
        if len(body.images[0].data) > max_bytes:
            raise PayloadTooLargeError(f"the image has more than {max_bytes} bytes, which is the limit")
    elif media_type.startswith("image/") or media_type == "application/octet-stream":
        body = Body([Upload(None, await read_body(request, max_bytes))])
    else:
        raise _unsupported(media_type)
    if not body.images[0].data:
        raise EmptyImageError("the image has 0 bytes")
    return body


async def read_images(
    request: Request, max_images: int, max_body: int, max_bytes: int, max_fields: int
) -> Body:
    """The images of a form, in order; one of more than ``max_bytes`` bytes is kept one byte too long.

    Raises:
        UnsupportedMediaTypeError: the Content-Type is not multipart/form-data, or the body is compressed.
        TooManyImagesError: there are more than ``max_images`` fields ``image``.
        PayloadTooLargeError: the body has more than ``max_body`` bytes.
        InvalidBodyError: broken multipart, or no field ``image``.
    """
    if _media_type(request) != _FORM:
        raise _unsupported(_media_type(request), "send multipart/form-data with several fields 'image'")
    return await _read_form(request, max_body, max_bytes, max_images, max_fields)


def is_form(request: Request) -> bool:
    """Whether the body is a form, which may hold parameters."""
    return _media_type(request) == _FORM


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(media_type: str, hint: str | None = None) -> UnsupportedMediaTypeError:
    what = f"cannot read Content-Type {media_type}" if media_type else "the request has no Content-Type"
    return UnsupportedMediaTypeError(what, hint)


async def limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The chunks of the body, as long as they do not exceed ``limit`` bytes in all.

    Raises:
        UnsupportedMediaTypeError: the body is compressed.
        PayloadTooLargeError: it has more than ``limit`` bytes.
    """
    coding = request.headers.get("content-encoding", "")
    if coding.lower() not in ("", "identity"):
        raise UnsupportedMediaTypeError(
            f"cannot read Content-Encoding {coding}", "send the body uncompressed"
        )
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise PayloadTooLargeError(f"the body has {announced} bytes, the limit is {limit}")
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise PayloadTooLargeError(f"the body has more than {limit} bytes, which is the limit")
        yield chunk


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, joined as it comes: many small chunks take no more memory than a large one.

    Raises:
        UnsupportedMediaTypeError: it is compressed.
        PayloadTooLargeError: it has more than ``limit`` bytes.
    """
    data = bytearray()
    async for chunk in limited(request, limit):
        data += chunk
    return bytes(data)


async def _read_form(
    request: Request, max_body: int, max_bytes: int, max_images: int, max_fields: int
) -> Body:
    form = _Form(request.headers["content-type"], max_bytes, max_images + max_fields)
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
        async for chunk in limited(request, max_body):
            parser.write(chunk)
            if len(form.images) > max_images:
                raise (
                    InvalidBodyError(f"the form has several fields {FIELD!r}; POST /predict takes one image")
                    if max_images == 1
                    else TooManyImagesError(f"the form has more than {max_images} fields {FIELD!r}")
                )
    except FormParserError as error:
        raise InvalidBodyError(f"the multipart body cannot be read: {error}") from error
    if not form.complete:
        raise InvalidBodyError("the multipart body ends early, its last boundary is missing")
    if "" in form.names:
        raise InvalidBodyError("the form has a field whose name is empty, or that has none")
    if not form.images:
        names = ", ".join(sorted(form.names)) or "none"
        raise InvalidBodyError(f"the form has no field {FIELD!r}; its fields: {names}")
    return Body(form.images, [(name, bytes(value).decode("utf-8", "replace")) for name, value in form.fields])


class _Form:
    """What a multipart body holds: names of its parts, those called ``image``, values of the others.

    Everything stays in memory, where the byte limit bounds it; nothing is written to disk.
    """

    def __init__(self, content_type: str, max_bytes: int, max_parts: int) -> None:
        _, parameters = parse_options_header(content_type)
        if not parameters.get(b"boundary"):
            raise InvalidBodyError("the Content-Type names no multipart boundary")
        self.boundary = parameters[b"boundary"]
        self.names: list[str] = []
        self.images: list[Upload] = []
        self.fields: list[tuple[str, bytearray]] = []
        self.complete = False
        self._max_bytes = max_bytes
        self._max_parts = max_parts
        self._header = bytearray()
        self._value = bytearray()

    def on_part_begin(self) -> None:
        if len(self.names) == self._max_parts:
            raise InvalidBodyError(f"the form has more than {self._max_parts} fields")
        self.names.append("")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition" and not self.names[-1]:
            _, parameters = parse_options_header(bytes(self._value))
            self.names[-1] = parameters.get(b"name", b"").decode("utf-8", "replace")
            if self.names[-1] == FIELD:
                name = parameters.get(b"filename", b"").decode("utf-8", "replace")
                self.images.append(Upload(name or None))
            else:
                self.fields.append((self.names[-1], bytearray()))
        self._header.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.names[-1] == FIELD:
            kept, most = self.images[-1].data, self._max_bytes + 1
        elif self.fields and self.fields[-1][0] == self.names[-1]:
            kept, most = self.fields[-1][1], _VALUE
            if len(kept) + end - start > most:
                raise InvalidBodyError(
                    f"the field {self.names[-1]!r} has more than {most} bytes", "give less of what it lists"
                )
        else:
            return  # a part without a name
        assert isinstance(kept, bytearray)
        kept += data[start : min(end, start + most - len(kept))]

    def on_end(self) -> None:
        self.complete = True
