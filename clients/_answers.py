"""Reading what the gateway answers: arrays and metadata, or one of the client's errors."""

import json
import zipfile
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from PIL import Image

from clients._maps import Map
from clients.errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ServerError,
    UnauthorizedError,
    UnavailableError,
)
from mtcp_serve.kinds import KINDS

_METADATA = "metadata"
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


@dataclass(frozen=True, eq=False)
class Answer(Mapping[str, Map]):
    """The maps of one photo: ``answer["depth"]`` is an array."""

    metadata: Mapping[str, Any]
    """The gateway's JSON without the pictures: models, image, timings_ms, and maps by task name."""
    arrays: Mapping[str, Map]

    def about(self, name: str) -> Mapping[str, Any]:
        """What the gateway says of a map: its kind, labels and colours, unit, range, frame, size."""
        about: Mapping[str, Any] = self.metadata["maps"][name]
        return about

    def __getitem__(self, name: str) -> Map:
        """The map of task ``name``."""
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        """The tasks' names, in the order asked for."""
        return iter(self.arrays)

    def __len__(self) -> int:
        """How many maps there are."""
        return len(self.arrays)


def read_answer(response: httpx.Response) -> Answer:
    """The maps in an answer of ``POST /predict``, npz or JSON.

    Raises:
        ClientError: the answer is an error, or cannot be read.
    """
    _raise_for_error(response)
    try:
        if response.headers["content-type"].startswith("application/json"):
            return _from_json(response.json())
        return _from_npz(response.content)
    except _UNREADABLE as error:
        raise ServerError(f"the answer of {response.url} cannot be read: {error!r}") from error


def read_models(response: httpx.Response) -> list[dict[str, Any]]:
    """The models in an answer of ``GET /models``.

    Raises:
        ClientError: the answer is an error, or cannot be read.
    """
    _raise_for_error(response)
    try:
        models: list[dict[str, Any]] = response.json()["models"]
    except _UNREADABLE as error:
        raise ServerError(f"the answer of {response.url} cannot be read: {error!r}") from error
    return models


def translate(error: httpx.TransportError, request: httpx.Request) -> ClientError:
    """The client's error for one of httpx."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return DeadlineError(f"{request.url} did not answer in time")
    return UnavailableError(f"{request.url} cannot be reached: {error}")


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
        raise kind(message, code=str(response.status_code)) from error
    after = response.headers.get("retry-after", "")
    raise kind(**fields, retry_after=float(after) if after.isdecimal() else None)


def _from_npz(content: bytes) -> Answer:
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        metadata = json.loads(archive[_METADATA].item())
        return Answer(metadata, {name: archive[name] for name in metadata["maps"]})


def _from_json(metadata: dict[str, Any]) -> Answer:
    arrays = {}
    for name, about in metadata["maps"].items():
        with Image.open(BytesIO(b64decode(about.pop("png")))) as image:
            arrays[name] = KINDS[about["kind"]].from_pixels(about, np.asarray(image))
    return Answer(metadata, arrays)
