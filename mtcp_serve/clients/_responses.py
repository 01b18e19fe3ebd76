"""Reading the gateway's responses: a prediction, or one of the client's errors."""

import json
import zipfile
from base64 import b64decode
from functools import partial
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.clients.errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ServerError,
    UnauthorizedError,
    UnavailableError,
)
from mtcp_serve.inference.images import decode
from mtcp_serve.kinds import KINDS
from mtcp_serve.kinds.base import Map
from mtcp_serve.kinds.confidence import SUFFIX, ConfidenceTask
from mtcp_serve.prediction import Prediction

_METADATA = "metadata"
_ZIP = b"PK"  # what an npz archive begins with
_UNREADABLE = (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile)
"""What comes of reading as maps what is none, such as the page of a proxy."""
_ERRORS: dict[int, type[ClientError]] = {
    401: UnauthorizedError,
    404: NotFoundError,
    408: DeadlineError,
    429: OverloadedError,
    503: UnavailableError,
    504: DeadlineError,
}


def read_prediction(response: httpx.Response, image: bytes) -> Prediction:
    """The maps of ``image`` in a response to ``POST /predict``, npz or JSON.

    Raises:
        ClientError: the response is an error, or cannot be read.
    """
    content = read_content(response)
    media = _media_type(response)
    if media != "application/json" and not content.startswith(_ZIP):
        raise ServerError(f"{response.url} answered {media}, not in the gateway's words")
    try:
        if media == "application/json":
            arrays, sure, metadata = _from_json(json.loads(content))
        else:
            arrays, sure, metadata = _from_npz(content)
        side = max(max(values.shape[:2]) for values in arrays.values())
    except _UNREADABLE as error:
        raise ServerError(f"the response of {response.url} cannot be read: {error!r}") from error
    return Prediction(arrays, metadata, partial(decode, image, enough=side), sure)


def read_content(response: httpx.Response) -> bytes:
    """The body of a response.

    Raises:
        ClientError: the response is an error, or none of the gateway's, such as the page of a proxy.
    """
    _raise_for_error(response)
    media = _media_type(response)
    if response.status_code == 204 or media in ("", "text/html"):
        what = media or f"{response.status_code} without a Content-Type"
        raise ServerError(f"{response.url} answered {what}, not in the gateway's words")
    return response.content


def read_models(response: httpx.Response) -> list[dict[str, Any]]:
    """The models in a response to ``GET /models``.

    Raises:
        ClientError: the response is an error, or cannot be read.
    """
    read_content(response)
    try:
        models: list[dict[str, Any]] = response.json()["models"]
    except _UNREADABLE as error:
        raise ServerError(f"the response of {response.url} cannot be read: {error!r}") from error
    return models


def translate(error: httpx.RequestError, request: httpx.Request, begun: bool) -> ClientError:
    """The client's error for one of httpx; ``begun`` says whether a response had begun."""
    if isinstance(error, httpx.DecodingError):
        return ServerError(f"the response of {request.url} cannot be read: {error}")
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return DeadlineError(f"{request.url} did not answer in time")
    if begun:
        return ServerError(f"{request.url} broke off its response: {error or type(error).__name__}")
    return UnavailableError(f"{request.url} cannot be reached: {error}")


def _media_type(response: httpx.Response) -> str:
    """Without its parameters; empty where the response has none."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _raise_for_error(response: httpx.Response) -> None:
    if response.is_success:
        return
    kind = _ERRORS.get(response.status_code) or (
        InvalidRequestError if response.is_client_error else ServerError
    )
    try:
        fields = {name: str(response.json()["error"][name]) for name in ("code", "message", "hint")}
    except (ValueError, KeyError, TypeError) as error:  # something else answers there
        message = f"{response.url} answered {response.status_code} and not in the gateway's words"
        if response.has_redirect_location:
            message += f", it redirects to {response.headers['location']}"
        raise kind(message, code=str(response.status_code)) from error
    after = response.headers.get("retry-after", "")
    raise kind(**fields, retry_after=float(after) if after.isdecimal() else None)


_Read = tuple[dict[str, Map], dict[str, Map], dict[str, Any]]
"""Maps and confidences by task name, and the metadata."""


def _from_npz(content: bytes) -> _Read:
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        metadata = json.loads(archive[_METADATA].item())
        maps = metadata["maps"]
        sure = {name: archive[name + SUFFIX] for name, about in maps.items() if "confidence" in about}
        return {name: archive[name] for name in maps}, sure, metadata


def _from_json(metadata: dict[str, Any]) -> _Read:
    arrays, sure = {}, {}
    for name, about in metadata["maps"].items():
        arrays[name] = KINDS[about["kind"]].from_pixels(about, _pixels(about))
        if "confidence" in about:
            sure[name] = ConfidenceTask.from_pixels(about["confidence"], _pixels(about["confidence"]))
    return arrays, sure, metadata


def _pixels(about: dict[str, Any]) -> NDArray[Any]:
    """The PNG file in ``about``, which it is taken out of."""
    with Image.open(BytesIO(b64decode(about.pop("png")))) as image:
        return np.asarray(image)
