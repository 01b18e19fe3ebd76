"""The camera as parameters of the Open Inference Protocol, asked by Triton's own clients and by ours."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from mtcp_serve.clients import AsyncTritonClient, TritonClient
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.prediction import Prediction
from tests.mtcp_serve.process import CLEAN, Server, free_port
from tests.mtcp_serve.support import HEIGHT, WIDTH, encode, noise

MIDDLE = f"{(WIDTH - 1) / 2:.3f},{(HEIGHT - 1) / 2:.3f}"
MODES = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(scope="module")
def ports(bundle: Path) -> Iterator[dict[str, str]]:
    port = free_port()
    server = Server(bundle, grpc_port=port)
    yield {"http": server.url.removeprefix("http://"), "grpc": f"127.0.0.1:{port}"}
    assert server.stop() in CLEAN


def ask(ports: dict[str, str], mode: str, parameters: dict[str, Any] | None) -> dict[str, Any]:
    """The parameters of the response to a request with ``parameters``."""
    image = noise(HEIGHT, WIDTH)[None]
    with MODES[mode].InferenceServerClient(ports[mode]) as client:
        tensor = MODES[mode].InferInput("image", list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)
        response = client.infer("tiny", [tensor], parameters=parameters).get_response()
    if mode == "http":
        found: dict[str, Any] = response["parameters"]
        return found
    return {name: value.string_param for name, value in response.parameters.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("parameters", "intrinsics", "source"),
    [
        (None, f"27.713,27.713,{MIDDLE}", "assumed"),  # 60 degrees over the longer side
        ({"fov_x": 90}, f"16.000,16.000,{MIDDLE}", "request"),
        ({"fov_x": "53.13010235415598"}, f"32.000,32.000,{MIDDLE}", "request"),
        ({"focal_px": 77}, f"77.000,77.000,{MIDDLE}", "request"),
        ({"intrinsics": "7.5,8,9,10", "mine": True}, "7.500,8.000,9.000,10.000", "request"),
    ],
)
def test_the_response_says_which_camera_was_taken(
    ports: dict[str, str], mode: str, parameters: dict[str, Any] | None, intrinsics: str, source: str
) -> None:
    assert ask(ports, mode, parameters) == {"intrinsics": intrinsics, "camera_source": source}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fov_x": 180}, "fov_x is 180.0; it is in degrees, from 0.001 to 179"),
        ({"fov_x": "wide"}, "fov_x is 'wide', not a number"),
        ({"focal_px": True}, "focal_px is True, not a number"),
        ({"focal_px": "inf"}, "focal_px is inf; it is in pixels, from 0.001 to 1e+09"),
        ({"intrinsics": "1,2,3"}, "write four numbers: fx,fy,cx,cy"),
        ({"intrinsics": 5}, "intrinsics are 5, not text fx,fy,cx,cy"),
        ({"fov_x": 60, "focal_px": 50}, "fov_x and focal_px are given; give one of them"),
    ],
)
def test_a_camera_that_cannot_be(
    ports: dict[str, str], mode: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(ports, mode, parameters)
    assert message in (caught.value.message() or "")
    assert caught.value.status() == ("422" if mode == "http" else "StatusCode.INVALID_ARGUMENT")


def test_our_clients_take_one(ports: dict[str, str]) -> None:
    photo, camera = encode(noise(48, 64)), CameraRequest(intrinsics=(50, 51, 30, 20))

    async def predict() -> Prediction:
        async with AsyncTritonClient(ports["grpc"]) as client:
            return await client.predict(photo, ["depth"], camera=camera)

    with TritonClient(ports["grpc"]) as client:
        assert client.predict(photo, ["depth"]).metadata["image"]["camera"]["source"] == "assumed"
        found = [client.predict(photo, ["depth"], size="input", camera=camera), asyncio.run(predict())]
    for maps in found:
        wanted = {"fx": 50, "fy": 51, "cx": 30, "cy": 20, "source": "request"}
        assert maps.metadata["image"]["camera"] == wanted
    points = found[0].points().positions.reshape(48, 64, 3)
    assert points[0, 0, 0] == pytest.approx(points[0, 0, 2] * 30 / 50)
