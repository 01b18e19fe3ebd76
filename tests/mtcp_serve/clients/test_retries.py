"""Which failures the Triton clients' channel tries again, against a server that fails as it is told."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2
from tritonclient.utils import InferenceServerException

from mtcp_serve.clients._wire import CHANNEL

LARGE = np.zeros((1, 720, 1280, 3), np.uint8)  # 2.8 MB, more than gRPC keeps for a retry by default


class Failing(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers ``ModelInfer`` with each of ``failures`` in turn, then with success; counts the attempts."""

    def __init__(self) -> None:
        self.failures: list[grpc.StatusCode] = []
        self.attempts = 0

    def service(self, _: object) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._infer)

    def _infer(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        self.attempts += 1
        if self.failures:
            context.abort(self.failures.pop(0), "as told")
        return bytes(service_pb2.ModelInferResponse(model_name="m").SerializeToString())


@pytest.fixture
def failing() -> Failing:
    return Failing()


@pytest.fixture
def client(failing: Failing) -> Iterator[InferenceServerClient]:
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(1), handlers=[failing], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with InferenceServerClient(f"127.0.0.1:{port}", channel_args=CHANNEL) as client:
        yield client
    server.stop(None).wait()


def infer(client: InferenceServerClient) -> None:
    image = InferInput("image", list(LARGE.shape), "UINT8")
    image.set_data_from_numpy(LARGE)
    client.infer("m", [image], client_timeout=20)


def test_unavailable_is_tried_again(client: InferenceServerClient, failing: Failing) -> None:
    failing.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    infer(client)
    assert failing.attempts == 3


def test_attempts_are_bounded(client: InferenceServerClient, failing: Failing) -> None:
    failing.failures = [grpc.StatusCode.UNAVAILABLE] * 100
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        infer(client)
    assert failing.attempts == 4


@pytest.mark.parametrize("status", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_nothing_else_is(client: InferenceServerClient, failing: Failing, status: grpc.StatusCode) -> None:
    failing.failures = [status]
    with pytest.raises(InferenceServerException, match=status.name):
        infer(client)
    assert failing.attempts == 1
