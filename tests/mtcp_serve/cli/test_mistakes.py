"""Mistakes of whoever types a command: one line that says what to do, and the documented status."""

import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtcp_serve.cli import cli
from mtcp_serve.errors import PortError
from mtcp_serve.server.listening import check_ports
from mtcp_serve.server.settings import Settings
from tests.needs import needs_linux


def refused(status: int, *arguments: object) -> str:
    """What a command says that ends with ``status``: one error, no traceback."""
    done = CliRunner().invoke(cli, [str(each) for each in arguments])
    assert done.exit_code == status, done.output
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--root-path", "maps"], "root_path: 'maps' is not such a path; write it like /maps"),
        (["--root-path", "/maps/"], "without a slash at the end"),
        (["--triton", "localhost"], "triton: 'localhost' is not HOST:PORT"),
        (["--triton", "http://h:8001"], "triton: 'http://h:8001' is not HOST:PORT"),
        (["--triton", "h:8001", "--bundle", "b"], "error: bundle and triton are both given"),
        (["--triton", "h:8001", "--triton-ca", "ca.pem"], "error: triton_ca is for TLS"),
        (["--port", "9000", "--grpc-port", "9000"], "error: port and grpc_port are the same; give two"),
        (["--tls-cert", "cert.pem"], "error: tls_cert and tls_key go together: give both or neither"),
        (["--cors-origin", "example.org"], "cors_origin: 'example.org' is not an origin"),
    ],
)
def test_settings_that_cannot_be(arguments: list[str], message: str) -> None:
    assert message in refused(2, "serve", *arguments)


def test_endpoints_of_triton() -> None:
    endpoints = ("triton:8001", "[::1]:8001", "grpcs://triton.example.org:8001")
    assert Settings(triton=endpoints).triton == endpoints


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_that_is_taken(option: str, bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = ["--port", 0] if option == "--grpc-port" else []
        said = refused(3, "serve", option, port, *other, "-b", bundle)
    assert f"127.0.0.1 cannot be listened on at port {port}" in said
    assert said.endswith(f"give another {option}")


def test_a_host_that_is_not_this_machine() -> None:
    with pytest.raises(PortError, match="give another --host"):
        check_ports(Settings(host="192.0.2.1"))  # of no machine: RFC 5737


def test_a_bundle_that_is_given_twice(bundle: Path) -> None:
    said = refused(2, "serve", "--port", 0, "--bundle", bundle, "--bundle", bundle)
    assert "two of the bundles are called 'tiny'" in said


def test_an_engine_that_is_not_installed(
    bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mtcp_serve.engines.openvino", None)
    arguments = ("-b", bundle, "--engine", "openvino")
    assert "pip install 'mtcp-serve[openvino]'" in refused(3, "serve", "--port", 0, *arguments)
    assert "pip install 'mtcp-serve[openvino]'" in refused(
        3, "predict", image, "-o", tmp_path / "out", *arguments
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "png"], "are asked for; name one of them as tasks"),
        (["--no-overview", "--colormap", "turbo"], "none is written; leave --no-overview out"),
        (
            ["--format", "cutout", "--format-option", "background=white"],
            "background: 'white' is neither transparent nor a color: #ffffff",
        ),
        (["--video", "depth"], "--video, --overlay, --every and --smooth are for videos"),
        (["--every", "2"], "are for videos"),
        (["--smooth", ".8"], "are for videos"),
        (["--overlay", "depth"], "are for videos"),
    ],
)
def test_options_that_do_not_fit_say_what_to_do(
    bundle: Path, image: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert message in refused(2, "predict", image, "-o", out, "-b", bundle, *options)
    assert not out.exists()


def test_a_folder_that_cannot_be_made(bundle: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "nowhere" / "deep")
    assert f"{out} is a link to nothing" in refused(2, "predict", image, "-o", out, "-b", bundle)


@needs_linux
def test_a_file_system_that_takes_no_folders(bundle: Path, image: Path) -> None:
    assert "cannot go to /proc/out: /proc" in refused(2, "predict", image, "-o", "/proc/out", "-b", bundle)


def test_check_takes_threads_that_can_be(bundle: Path) -> None:
    said = refused(2, "check", bundle, "--intra-op-threads", "-1")
    assert "intra_op_threads: Input should be greater than or equal to 0" in said
