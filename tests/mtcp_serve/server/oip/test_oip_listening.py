"""Where gRPC listens, and what becomes of the channels to it when the server ends."""

import signal
import socket
import threading
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc
from starlette.testclient import TestClient
from tritonclient.grpc import service_pb2, service_pb2_grpc

from mtcp_serve.errors import SettingsError
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve import support
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.needs import needs_posix


def test_a_port_that_is_taken(bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(bundle=(bundle,), grpc_port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="gRPC cannot listen"), TestClient(create_app(settings)):
            pass


def test_an_address_of_ipv6(bundle: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    settings = Settings(bundle=(bundle,), intra_op_threads=1, host="::1", grpc_port=port)
    with (
        TestClient(create_app(settings)),
        tritonclient.grpc.InferenceServerClient(f"[::1]:{port}") as client,
    ):
        assert client.is_server_live()


@needs_posix
def test_a_channel_that_is_kept_goes_elsewhere_before_calls_are_refused(bundle: Path) -> None:
    """Two servers of one name, as behind a Service: the one that ends tells its clients so."""
    ports = free_port(), free_port()
    ends, stays = (
        Server(bundle, grpc_port=port, shutdown_delay_s=0.5, concurrency=1, deadline_s=PATIENCE_S)
        for port in ports
    )
    left = threading.Event()

    def watch(state: grpc.ChannelConnectivity) -> None:
        if state is not grpc.ChannelConnectivity.READY:
            left.set()

    try:
        with (
            ends.connect(f"Content-Length: {len(support.STUCK)}") as stuck,
            grpc.insecure_channel("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)) as channel,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            ready = service_pb2.ModelReadyRequest(name="tiny")
            assert stub.ModelReady(ready).ready
            channel.subscribe(watch)
            stuck.sendall(support.STUCK)
            until(lambda: ends.metric("mtcp_running_requests") == 1)
            assert not left.is_set()
            ends.process.send_signal(signal.SIGTERM)
            assert left.wait(PATIENCE_S)
            for _ in range(5):
                assert stub.ModelReady(ready).ready
            assert ends.process.poll() is None, "it still drains"
    finally:
        for each in (ends, stays):
            assert each.stop() in CLEAN
