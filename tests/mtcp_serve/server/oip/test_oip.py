"""The Open Inference Protocol, asked by the real Triton clients, over HTTP and gRPC."""

import asyncio
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.clients import TritonClient
from mtcp_serve.engines.triton import TritonEngine
from mtcp_serve.inference.timings import Timings
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.oip.grpc_server import Servicer
from mtcp_serve.server.service import Service
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.mtcp_serve.server.test_predict import expected
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, noise

KSERVE = os.environ.get("MTCP_TEST_KSERVE", "")
"""A Python that has kserve, whose protobuf is not Triton's."""
needs_kserve = pytest.mark.skipif(not KSERVE, reason="MTCP_TEST_KSERVE names no Python that has kserve")
IMAGES = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(3)])
STUCK = np.ascontiguousarray(np.broadcast_to(np.array([0, 255, 0], np.uint8), (1, HEIGHT, WIDTH, 3)))
MODES = ("http", "grpc")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[tuple[Server, int]]:
    """A server, and its port for gRPC."""
    grpc_port = free_port()
    server = Server(
        bundle, grpc_port=grpc_port, deadline_s=PATIENCE_S, concurrency=1, queue_size=1, max_batch_images=4
    )
    yield server, grpc_port
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


@pytest.fixture(scope="module")
def ports(server: tuple[Server, int]) -> dict[str, str]:
    return addresses(*server)


def addresses(server: Server, grpc_port: int) -> dict[str, str]:
    return {"http": server.url.removeprefix("http://"), "grpc": f"127.0.0.1:{grpc_port}"}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(ports: dict[str, str], mode: str) -> Iterator[Any]:
    module = tritonclient.http if mode == "http" else tritonclient.grpc
    with module.InferenceServerClient(ports[mode]) as client:
        yield client


def module(mode: str) -> Any:
    return tritonclient.http if mode == "http" else tritonclient.grpc


def image_input(mode: str, images: Any = IMAGES, **options: Any) -> Any:
    tensor = module(mode).InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, **options)
    return tensor


def check_maps(result: Any, names: set[str]) -> None:
    for task in TASKS:
        if task.name in names:
            found = result.as_numpy(task.output)
            want = np.stack([expected(image)[task.name] for image in IMAGES])
            assert found.dtype == (np.uint8 if task.kind == "labels" else np.float32)
            assert np.allclose(found, want, atol=1e-5)
        else:
            assert result.as_numpy(task.output) is None


def test_health_and_metadata(client: Any, mode: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "7")
    assert not client.is_model_ready("other")
    as_json = {} if mode == "http" else {"as_json": True}
    assert client.get_server_metadata(**as_json)["name"] == "mtcp-serve"
    metadata = client.get_model_metadata("tiny", **as_json)
    assert metadata["versions"] == ["7"]
    assert [entry["name"] for entry in metadata["outputs"]] == [task.output for task in TASKS]
    assert [int(side) for side in metadata["inputs"][0]["shape"]] == [-1, HEIGHT, WIDTH, 3]
    config = client.get_model_config("tiny", **as_json)
    config = config.get("config", config)
    assert config["max_batch_size"] == 4
    assert json.loads(config["parameters"]["manifest.7"]["string_value"])["name"] == "tiny"
    index = client.get_model_repository_index(**as_json)
    index = index if mode == "http" else index["models"]
    assert [(entry["name"], entry["state"]) for entry in index] == [("tiny", "READY")]


def test_every_map(client: Any, mode: str) -> None:
    result = client.infer("tiny", [image_input(mode)], request_id="a1")
    check_maps(result, {task.name for task in TASKS})
    response = result.get_response() if mode == "http" else result.get_response(as_json=True)
    assert (response["id"], response["model_version"]) == ("a1", "7")


def test_chosen_outputs(client: Any, mode: str) -> None:
    outputs = [module(mode).InferRequestedOutput(name) for name in ("parsing", "depth_metres")]
    check_maps(client.infer("tiny", [image_input(mode)], "7", outputs), {"parsing", "depth"})


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_rest_in_json_and_binary(ports: dict[str, str], binary_input: bool, binary_output: bool) -> None:
    with tritonclient.http.InferenceServerClient(ports["http"]) as client:
        outputs = [
            tritonclient.http.InferRequestedOutput(task.output, binary_data=binary_output) for task in TASKS
        ]
        tensor = image_input("http", binary_data=binary_input)
        check_maps(client.infer("tiny", [tensor], outputs=outputs), {task.name for task in TASKS})


def test_grpc_contents_and_stream(ports: dict[str, str]) -> None:
    answers: list[Any] = []
    with tritonclient.grpc.InferenceServerClient(ports["grpc"]) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        client.async_stream_infer("tiny", [image_input("grpc")])
        client.async_stream_infer("other", [image_input("grpc")])
        client.async_stream_infer("tiny", [image_input("grpc")])
        until(lambda: len(answers) == 3)
        client.stop_stream()
    check_maps(answers[0][0], {task.name for task in TASKS})
    assert "no model 'other'" in str(answers[1][1])
    check_maps(answers[2][0], {task.name for task in TASKS})


@pytest.mark.parametrize(
    ("images", "model", "version", "output", "message"),
    [
        (IMAGES, "other", "", "depth_metres", "no model 'other' is loaded; there is tiny"),
        (IMAGES, "tiny", "8", "depth_metres", "has no version '8'; it has 7"),
        (IMAGES, "tiny", "", "depth", "no output 'depth'; it has semseg, depth_metres"),
        (IMAGES[:, 1:], "tiny", "", "depth_metres", r"image must be UINT8 \[batch, 24, 32, 3\]"),
        (IMAGES[0], "tiny", "", "depth_metres", r"this is UINT8 \[24, 32, 3\]"),
        (np.concatenate([IMAGES, IMAGES]), "tiny", "", "depth_metres", "6 images, the limit is 4"),
    ],
)
def test_refusals(
    client: Any, mode: str, images: Any, model: str, version: str, output: str, message: str
) -> None:
    outputs = [module(mode).InferRequestedOutput(output)]
    with pytest.raises(InferenceServerException, match=message):
        client.infer(model, [image_input(mode, np.ascontiguousarray(images))], version, outputs)


def test_a_full_queue(server: tuple[Server, int], client: Any, mode: str) -> None:
    """The one slot and the one place are taken."""
    with server[0].held(2), pytest.raises(InferenceServerException, match="the most that may") as refused:
        client.infer("tiny", [image_input(mode)])
    assert ("maximum queue size" in str(refused.value)) == (mode == "grpc")
    check_maps(client.infer("tiny", [image_input(mode)]), {task.name for task in TASKS})


def test_a_deadline(bundle: Path) -> None:
    grpc_port = free_port()
    server = Server(bundle, grpc_port=grpc_port, deadline_s=1)
    try:
        for mode, address in addresses(server, grpc_port).items():
            with (
                module(mode).InferenceServerClient(address) as client,
                pytest.raises(InferenceServerException, match="not ready within 1 s"),
            ):
                client.infer("tiny", [image_input(mode, STUCK)])
    finally:
        assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


async def counted_for_one_call(settings: Settings) -> list[Timings]:
    """The timings that a gRPC request is counted with that waits for the one slot and then for the model."""
    counted: list[Timings] = []
    async with Service(settings, load_engines(settings), Metrics()) as service:
        service.observers.append(counted.append)
        free = asyncio.Event()
        holder = asyncio.create_task(service.admission.run(free.wait))
        await asyncio.sleep(0)
        tensor = image_input("grpc", IMAGES[:1])
        request = service_pb2.ModelInferRequest(
            model_name="tiny", inputs=[tensor._get_tensor()], raw_input_contents=[tensor._get_content()]
        )

        async def read() -> Any:
            return request

        call = asyncio.create_task(Servicer(service).ModelInfer(read, None))
        while not (service.admission.waiting or call.done()):
            await asyncio.sleep(0)
        free.set()
        await asyncio.gather(holder, call)
    return counted


def test_the_wait_for_a_slot_is_counted_over_grpc_too(settings: Settings) -> None:
    one = settings.model_copy(update={"concurrency": 1})
    (times,) = asyncio.run(counted_for_one_call(one))
    assert [span.stage for span in times.spans] == ["queue", "queue", "infer"]


def test_numbers_of_a_message_are_not_read_in_the_event_loop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be as many as a request has bytes; meanwhile no other request would be answered."""
    threads: list[bool] = []

    def contents(values: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return np.asarray(values, np.uint8)

    monkeypatch.setattr("mtcp_serve.server.oip.grpc_server._contents", contents)
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name="image", datatype="UINT8", shape=[1, *IMAGES.shape[1:]]
    )
    tensor.contents.uint_contents.extend(IMAGES[0].ravel().tolist())

    async def read() -> Any:
        return service_pb2.ModelInferRequest(model_name="tiny", inputs=[tensor])

    async def infer() -> Any:
        async with Service(settings, load_engines(settings), Metrics()) as service:
            return await Servicer(service).ModelInfer(read, None)

    assert len(asyncio.run(infer()).outputs) == len(TASKS)
    assert threads == [False]


def test_this_projects_triton_client(ports: dict[str, str]) -> None:
    with TritonClient(ports["grpc"]) as client:
        (maps, *_) = client.infer(IMAGES)
        assert np.allclose(maps["depth"], expected(IMAGES[0])["depth"], atol=1e-5)
        assert client.manifest().name == "tiny"


def test_the_client_takes_a_version_that_is_a_word(bundle: Path, tmp_path: Path) -> None:
    """Triton's versions are numbers, a bundle's may be any word."""
    shutil.copytree(bundle, tmp_path / "named")
    Manifest.load(bundle).model_copy(update={"version": "2026-beta"}).save(tmp_path / "named")
    port = free_port()
    server = Server(tmp_path / "named", grpc_port=port)
    try:
        with TritonClient(f"127.0.0.1:{port}") as client:
            assert client.manifest().version == "2026-beta"
            assert client.predict(IMAGES[0]).metadata["models"][0]["version"] == "2026-beta"
        (engine,) = TritonEngine.load([f"127.0.0.1:{port}"])
        assert engine.manifest.version == "2026-beta"
    finally:
        assert server.stop() in CLEAN


def test_a_compressed_request(ports: dict[str, str]) -> None:
    with tritonclient.http.InferenceServerClient(ports["http"]) as client:
        with pytest.raises(InferenceServerException, match="cannot read Content-Encoding gzip"):
            client.infer("tiny", [image_input("http")], request_compression_algorithm="gzip")
        result = client.infer("tiny", [image_input("http")], response_compression_algorithm="gzip")
    check_maps(result, {task.name for task in TASKS})


def test_statistics(server: tuple[Server, int], client: Any, mode: str) -> None:
    """Counted by image: what Triton's tools compute rates and times from."""

    def asked(*which: str) -> Any:
        found = client.get_inference_statistics(*which, **({} if mode == "http" else {"as_json": True}))
        (stats,) = found["model_stats"]
        return stats

    before = int(asked("tiny")["inference_count"])
    client.infer("tiny", [image_input(mode)])
    for which in ((), ("tiny",), ("tiny", "7")):
        stats = asked(*which)
        assert (stats["name"], stats["version"]) == ("tiny", "7")
        assert int(stats["inference_count"]) == before + len(IMAGES)
        assert int(stats["execution_count"]) == before + len(IMAGES)  # one at a time
        assert abs(int(stats["last_inference"]) / 1000 - time.time()) < PATIENCE_S
        parts = {name: part for name, part in stats["inference_stats"].items() if "count" in part}
        assert int(parts["success"]["ns"]) == pytest.approx(
            int(parts["queue"]["ns"]) + int(parts["compute_infer"]["ns"]), rel=1e-6
        )
        assert int(parts["compute_infer"]["count"]) == before + len(IMAGES)
        (by_size,) = stats["batch_stats"]
        assert int(by_size["batch_size"]) == 1
        assert int(by_size["compute_infer"]["ns"]) > 0
    with pytest.raises(InferenceServerException, match="no model 'other'"):
        asked("other")


def test_what_there_is_not_is_refused_by_name(server: tuple[Server, int], client: Any, mode: str) -> None:
    """Neither a traceback nor an internal error, which would call somebody out."""
    classes = module(mode).InferRequestedOutput("parsing", class_count=2)
    shared = module(mode).InferRequestedOutput("parsing")
    shared.set_shared_memory("region", 100)
    region = module(mode).InferInput("image", list(IMAGES.shape), "UINT8")
    region.set_shared_memory("region", IMAGES.nbytes)
    image = image_input(mode)
    refused = {
        "classification: there is no class": lambda: client.infer("tiny", [image], outputs=[classes]),
        "shared_memory_region: there is no shared": lambda: client.infer("tiny", [image], outputs=[shared]),
        "there is no shared memory": lambda: client.infer("tiny", [region]),
        "sequence_id: there is no sequences": lambda: client.infer("tiny", [image], sequence_id=3),
        "not by its clients": lambda: client.load_model("tiny"),
        "by whoever runs the server": lambda: client.unload_model("tiny"),
        "this server has no (systemshared|SystemShared)": lambda: client.get_system_shared_memory_status(),
        "this server has no (cuda|Cuda)": lambda: client.get_cuda_shared_memory_status(),
        "this server has no (logging|LogSettings)": lambda: client.get_log_settings(),
        "this server has no (trace|TraceSetting)": lambda: client.get_trace_settings(),
        "this server has no (models/tiny/)?(trace|TraceSetting)": lambda: client.get_trace_settings("tiny"),
    }
    for message, call in refused.items():
        with pytest.raises(InferenceServerException, match=message) as caught:
            call()  # type: ignore[no-untyped-call]
        assert caught.value.status() == ("501" if mode == "http" else "StatusCode.UNIMPLEMENTED")
    assert 'mtcp_errors_total{code="internal_error"}' not in server[0].client.get("/metrics").text


def test_parameters_that_change_nothing_are_let_pass(client: Any, mode: str) -> None:
    result = client.infer("tiny", [image_input(mode)], priority=1, timeout=10**9, parameters={"mine": "x"})
    check_maps(result, {task.name for task in TASKS})


KSERVES_CLIENT = """
import asyncio, sys
import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, InferenceGRPCClient
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, grpc = sys.argv[1:]
images = np.load(sys.stdin.buffer)

def request(binary):
    tensor = InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return InferRequest("tiny", [tensor])

def check(response):
    found = {output.name: output.as_numpy() for output in response.outputs}
    assert set(found) == {"semseg", "depth_metres", "normals", "saliency", "parsing"}, found
    want = images.astype(np.float64).mean(-1) / 25.5
    assert np.allclose(found["depth_metres"], want, atol=1e-5)
    assert response.model_name == "tiny"

async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url) is True
        assert await client.is_server_ready(url) is True
        assert await client.is_model_ready(url, "tiny") is True
        assert await client.is_model_ready(url, "other") is False
        for binary in (False, True):
            check(await client.infer(url, request(binary), model_name="tiny"))
    async with InferenceGRPCClient(grpc) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("tiny")
        check(await client.infer(request(True)))

asyncio.run(main())
"""


@needs_kserve
def test_kserves_own_client(server: tuple[Server, int], tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    served, grpc_port = server
    command = [KSERVE, "-c", KSERVES_CLIENT, served.url, f"127.0.0.1:{grpc_port}"]
    with (tmp_path / "images.npy").open("rb") as images:
        done = subprocess.run(command, stdin=images, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
