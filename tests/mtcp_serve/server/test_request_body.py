"""The limits of a request body, each at its edge: what is just allowed is read, one more is refused."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fastapi import Request

from mtcp_serve.errors import InvalidBodyError, PayloadTooLargeError, RequestError, TooManyImagesError
from mtcp_serve.server.request_body import Body, read_body, read_image, read_images

LIMIT = 1000
VALUE = 2**16
"""Bytes that a parameter in a form may have."""
FORM = "multipart/form-data; boundary=x"
Part = tuple[str, bytes]


def request(body: bytes, content_type: str, announced: bool) -> Request:
    """One whose body comes in two pieces, its length in the head or not."""
    headers = [(b"content-type", content_type.encode())]
    if announced:
        headers.append((b"content-length", str(len(body)).encode()))
    middle = len(body) // 2
    messages = [
        {"type": "http.request", "body": body[:middle], "more_body": True},
        {"type": "http.request", "body": body[middle:], "more_body": False},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def form(*parts: Part) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    return b"".join(head % (name.encode(), value) for name, value in parts) + b"--x--\r\n"


def image(parts: list[Part]) -> Callable[[bool], Coroutine[Any, Any, Body]]:
    """Reads ``parts`` where an image may have `LIMIT` bytes, with two parameters beside it."""
    return lambda announced: read_image(request(form(*parts), FORM, announced), LIMIT, 2)


def images(parts: list[Part], most: int = 10_000) -> Callable[[bool], Coroutine[Any, Any, Body]]:
    """Reads ``parts`` where there may be two images and ``most`` bytes."""
    return lambda announced: read_images(request(form(*parts), FORM, announced), 2, most, LIMIT, 2)


def raw(count: int) -> Callable[[bool], Coroutine[Any, Any, bytes]]:
    return lambda announced: read_body(request(bytes(count), "image/png", announced), LIMIT)


ONE: Part = ("image", b"pixels")
TWO = [ONE, ONE]
EDGES: dict[str, tuple[Any, Any, type[RequestError]]] = {
    "bytes": (raw(LIMIT), raw(LIMIT + 1), PayloadTooLargeError),
    "bytes of a form": (
        images(TWO, len(form(*TWO))),
        images(TWO, len(form(*TWO)) - 1),
        PayloadTooLargeError,
    ),
    "bytes of an image": (
        image([("image", bytes(LIMIT))]),
        image([("image", bytes(LIMIT + 1))]),
        PayloadTooLargeError,
    ),
    "images": (images(TWO), images([*TWO, ONE]), TooManyImagesError),
    "one image": (image([ONE]), image(TWO), InvalidBodyError),
    "parts": (
        image([ONE, ("a", b"1"), ("b", b"2")]),
        image([ONE, ("a", b"1"), ("b", b"2"), ("c", b"3")]),
        InvalidBodyError,
    ),
    "bytes of a parameter": (
        image([ONE, ("a", bytes(VALUE))]),
        image([ONE, ("a", bytes(VALUE + 1))]),
        InvalidBodyError,
    ),
}


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize(("allowed", "refused", "error"), EDGES.values(), ids=EDGES)
def test_what_is_allowed_and_one_more(
    allowed: Callable[[bool], Coroutine[Any, Any, object]],
    refused: Callable[[bool], Coroutine[Any, Any, object]],
    error: type[RequestError],
    announced: bool,
) -> None:
    assert asyncio.run(allowed(announced))
    with pytest.raises(error):
        asyncio.run(refused(announced))


def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    async def receive() -> Any:
        raise AssertionError("it was read")

    asked = request(bytes(LIMIT + 1), "image/png", announced=True)
    with pytest.raises(PayloadTooLargeError, match=f"the body has {LIMIT + 1} bytes, the limit is {LIMIT}"):
        asyncio.run(read_body(Request(asked.scope, receive), LIMIT))
