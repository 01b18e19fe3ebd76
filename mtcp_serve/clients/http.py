"""Clients for the gateway's HTTP API, blocking and asyncio."""

import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import httpx
from numpy.typing import ArrayLike

from mtcp_serve.clients._options import bearer, check_authorities, check_deadline, refusals
from mtcp_serve.clients._responses import read_content, read_models, read_prediction, translate
from mtcp_serve.clients.errors import InvalidRequestError
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.distances import Distances
from mtcp_serve.inference.pipeline import Size, check_asked
from mtcp_serve.prediction import Prediction
from mtcp_serve.utils.closing import AsyncClosing, Closing

Format = Literal["npz", "json"]
Source = str | PathLike[str] | bytes
"""A file or the bytes of one: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."""
_CONNECT_RETRIES = 2
_LONG = "distances"  # a parameter that an address may be too short for
_TLS = "https://"
C = TypeVar("C")


class _Client(ABC, Generic[C]):
    """What the clients, blocking and asyncio, are made of: a client of httpx's."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        deadline_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        authorities: str | PathLike[str] | None = None,
    ) -> None:
        check_deadline(deadline_s)
        trust: ssl.SSLContext | bool = True
        if authorities is not None:
            check_authorities(authorities, url.lower().startswith(_TLS), _TLS)
            trust = ssl.create_default_context(cafile=authorities)
        key = {} if api_key is None else {"Authorization": bearer(api_key)}
        headers = {**(headers or {}), **key}
        self._connect = partial(self._open, trust, base_url=url, timeout=deadline_s, headers=headers)
        self._process = os.getpid()
        self._opened: C = self._connect()

    @property
    def _client(self) -> C:
        """The client of httpx's; after a fork another, for on a connection of both the answers get mixed."""
        if self._process != os.getpid():
            self._process, self._opened = os.getpid(), self._connect()
        return self._opened

    @staticmethod
    @abstractmethod
    def _open(trust: ssl.SSLContext | bool, **given: Any) -> C:
        """A client that trusts ``trust`` at https://, made with what is ``given``."""


class GatewayClient(_Client[httpx.Client], Closing):
    """Predictions over HTTP; use it in a ``with`` statement. Threads may share one.

    Connecting, sending, and waiting for the answer may take ``deadline_s`` seconds each. Only a failed
    connection is tried again, never a request that a server has seen. ``headers`` go with every request, and
    ``api_key`` in one. ``authorities`` (a PEM file) are trusted at https://, instead of the usual ones.
    """

    @staticmethod
    def _open(trust: ssl.SSLContext | bool, **given: Any) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(verify=trust, retries=_CONNECT_RETRIES), **given)

    def predict(
        self,
        image: Source,
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        format: Format = "npz",
        model: str | None = None,
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
        distances: ArrayLike | None = None,
    ) -> Prediction:
        """The maps of ``tasks`` (all by default), as large as the image or as the model gives them.

        ``npz`` carries the arrays as they are; ``json`` carries PNGs: smaller, and rounded (depth to
        millimetres, normals and probabilities to 8 bits). ``camera`` says what took the image, where its
        EXIF does not. With ``confidence`` the prediction says how sure the model is of each map that it knows
        that of (`Prediction.confidence`); one that does not know it of any is an `InvalidRequestError`. With
        ``refine`` classes, depth and probabilities are brought to the size of the image along its edges;
        ``distances`` that are known, ``[(x, y, metres), ...]`` in pixels of the upright image and along the
        optical axis, correct the depth.

        Raises:
            ClientError: see `mtcp_serve.clients.errors`.
        """
        content = _read(image)
        request = _predict(
            self._client, content, tasks, size, format, model, _said(camera, confidence, refine, distances)
        )
        return read_prediction(self._send(request), content)

    def download(
        self,
        image: Source,
        format: str,
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        model: str | None = None,
        **parameters: str,
    ) -> bytes:
        """A response in any ``format`` that the gateway has, as it is: a zip, one PNG, a point cloud.

        ``parameters`` go with the query, such as ``visualize="true"``.

        Raises:
            ClientError: see `mtcp_serve.clients.errors`.
        """
        request = _predict(self._client, _read(image), tasks, size, format, model, parameters)
        return read_content(self._send(request))

    def models(self) -> list[dict[str, Any]]:
        """The loaded models and their tasks, as ``GET /models`` gives them.

        Raises:
            ClientError: see `mtcp_serve.clients.errors`.
        """
        return read_models(self._send(self._client.build_request("GET", "models")))

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _send(self, request: httpx.Request) -> httpx.Response:
        begun = False
        try:
            response = self._client.send(request, stream=True)
            begun = True
            with closing(response):
                response.read()
            return response
        except httpx.RequestError as error:
            raise translate(error, request, begun) from error


class AsyncGatewayClient(_Client[httpx.AsyncClient], AsyncClosing):
    """`GatewayClient` for asyncio: the same parameters, the same methods as coroutines."""

    @staticmethod
    def _open(trust: ssl.SSLContext | bool, **given: Any) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(verify=trust, retries=_CONNECT_RETRIES)
        return httpx.AsyncClient(transport=transport, **given)

    async def predict(
        self,
        image: Source,
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        format: Format = "npz",
        model: str | None = None,
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
        distances: ArrayLike | None = None,
    ) -> Prediction:
        """See `GatewayClient.predict`."""
        content = _read(image)
        request = _predict(
            self._client, content, tasks, size, format, model, _said(camera, confidence, refine, distances)
        )
        return read_prediction(await self._send(request), content)

    async def download(
        self,
        image: Source,
        format: str,
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        model: str | None = None,
        **parameters: str,
    ) -> bytes:
        """See `GatewayClient.download`."""
        request = _predict(self._client, _read(image), tasks, size, format, model, parameters)
        return read_content(await self._send(request))

    async def models(self) -> list[dict[str, Any]]:
        """See `GatewayClient.models`."""
        return read_models(await self._send(self._client.build_request("GET", "models")))

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        begun = False
        try:
            response = await self._client.send(request, stream=True)
            begun = True
            async with aclosing(response):
                await response.aread()
            return response
        except httpx.RequestError as error:
            raise translate(error, request, begun) from error


def _read(image: Source) -> bytes:
    """The bytes of a file."""
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{image} cannot be read: {error.strerror or error}") from error


def _said(
    camera: CameraRequest | None, confidence: bool, refine: bool, distances: ArrayLike | None
) -> dict[str, str]:
    query = {} if camera is None else camera.query()
    switches = {"confidence": confidence, "refine": refine}
    query |= {name: "true" for name, on in switches.items() if on}
    if distances is None:
        return query
    with refusals():
        return query | {_LONG: Distances.of(distances).text()}


def _predict(
    client: httpx.Client | httpx.AsyncClient,
    content: bytes,
    tasks: Sequence[str] | None,
    size: Size,
    format: str,
    model: str | None,
    parameters: Mapping[str, str],
) -> httpx.Request:
    check_asked(tasks)
    query: dict[str, str] = {"size": size, "format": format, **parameters}
    if tasks is not None:
        query["tasks"] = ",".join(tasks)
    if model is not None:
        query["model"] = model
    if _LONG in query:
        form = {_LONG: query.pop(_LONG)}
        return client.build_request("POST", "predict", params=query, data=form, files={"image": content})
    headers = {"Content-Type": "application/octet-stream"}
    return client.build_request("POST", "predict", params=query, content=content, headers=headers)
