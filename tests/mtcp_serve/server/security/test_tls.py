"""HTTPS and gRPC over TLS, with certificates made here; and what is not a certificate or key."""

import logging
import signal
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError
from typer.testing import CliRunner

from mtcp_serve.cli import cli
from mtcp_serve.clients import GatewayClient, TritonClient, UnavailableError
from mtcp_serve.engines.triton import TritonEngine
from mtcp_serve.errors import BundleError, SettingsError
from mtcp_serve.server.security.tls import Tls
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.mtcp_serve.server.test_bad_input import PNG
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, noise
from tests.needs import needs_posix

PASSWORD = "open, please"


@dataclass(frozen=True)
class Files:
    ca: Path
    cert: Path
    key: Path
    locked: Path
    """The same key, encrypted with `PASSWORD`."""
    client: Path
    """Certificate and key of a client."""
    other_ca: Path
    other_key: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    leaf = ca.issue_cert("127.0.0.1", "localhost")
    found = Files(*(folder / f"{name}.pem" for name in Files.__dataclass_fields__))
    ca.cert_pem.write_to_path(found.ca)
    other.cert_pem.write_to_path(found.other_ca)
    found.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(found.key)
    other.issue_cert("localhost").private_key_pem.write_to_path(found.other_key)
    ca.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(found.client)
    key = serialization.load_pem_private_key(found.key.read_bytes(), None)
    found.locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
    )
    return found


@pytest.fixture(scope="module")
def secure(bundle: Path, files: Files) -> Iterator[tuple[Server, str]]:
    """A server with TLS, and the address of its gRPC."""
    port = free_port()
    server = Server(bundle, tls_cert=files.cert, tls_key=files.key, grpc_port=port)
    yield server, f"grpcs://127.0.0.1:{port}"
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


def test_https(secure: tuple[Server, str], files: Files) -> None:
    server, _ = secure
    assert server.url.startswith("https://")
    with httpx.Client(
        base_url=server.url, verify=ssl.create_default_context(cafile=files.ca), timeout=PATIENCE_S
    ) as client:
        answer = client.post("/predict?tasks=depth", content=GOOD, headers=PNG)
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_who_trusts_others_is_not_served(secure: tuple[Server, str], files: Files) -> None:
    server, address = secure
    with (
        GatewayClient(server.url, authorities=files.other_ca) as client,
        pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.models()
    with (
        TritonClient(address, authorities=files.other_ca, deadline_s=PATIENCE_S) as triton,
        pytest.raises(UnavailableError),
    ):
        triton.manifest()
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/health/live", timeout=PATIENCE_S)


def test_our_clients_over_tls(secure: tuple[Server, str], files: Files) -> None:
    server, address = secure
    images = noise(HEIGHT, WIDTH)[None]
    with (
        GatewayClient(server.url, authorities=files.ca) as gateway,
        TritonClient(address, authorities=files.ca) as triton,
    ):
        there = gateway.predict(GOOD, tasks=["depth"])["depth"]
        assert (there == triton.infer(images, ["depth"])[0]["depth"]).all()


@needs_posix
def test_a_certificate_is_replaced_without_a_restart(bundle: Path, files: Files, tmp_path: Path) -> None:
    """One that does not fit its key changes nothing; else the next connections meet the new one."""
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    cert.write_bytes(files.cert.read_bytes())
    key.write_bytes(files.key.read_bytes())
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca)
    leaf = authority.issue_cert("127.0.0.1")
    port = free_port()
    server = Server(bundle, tls_cert=cert, tls_key=key, grpc_port=port)

    def trusted(authorities: Path) -> tuple[bool, bool]:
        """Whether a new connection meets a certificate of ``authorities``, over HTTP and over gRPC."""
        found = []
        with GatewayClient(server.url, authorities=authorities) as gateway:
            found.append(answers(gateway.models))
        with TritonClient(
            f"grpcs://127.0.0.1:{port}", authorities=authorities, deadline_s=PATIENCE_S
        ) as triton:
            found.append(answers(triton.manifest))
        return found[0], found[1]

    try:
        assert trusted(files.ca) == (True, True)
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "the old certificate stays: the key in" in "".join(server.log))
        assert trusted(files.ca) == (True, True)
        leaf.private_key_pem.write_to_path(key)
        before = "".join(server.log).count("reloaded: tiny 7")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "".join(server.log).count("reloaded: tiny 7") > before)
        assert trusted(ca) == (True, True)
        assert trusted(files.ca) == (False, False)
    finally:
        assert server.stop() in CLEAN


def answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except UnavailableError:
        return False
    return True


def test_a_gateway_before_a_triton_with_tls(secure: tuple[Server, str], files: Files) -> None:
    """Any server of the protocol will do as a Triton; here it is another gateway."""
    _, address = secure
    front = Server(triton=address, triton_ca=files.ca)
    try:
        answer = front.predict(query="tasks=depth&format=json")
        assert answer.status_code == 200, answer.text
        assert answer.json()["maps"]["depth"]["model"] == "tiny"
    finally:
        assert front.stop() in CLEAN


def test_the_authorities_of_a_triton_are_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a file"):
        TritonEngine.load(["grpcs://127.0.0.1:1"], tmp_path / "none.pem")


def test_an_encrypted_key_and_clients_with_certificates(
    bundle: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTCP_TLS_KEY_PASSWORD", PASSWORD)
    server = Server(bundle, tls_cert=files.cert, tls_key=files.locked, tls_client_ca=files.ca)
    trust = ssl.create_default_context(cafile=files.ca)
    try:
        with (
            httpx.Client(base_url=server.url, verify=trust, timeout=PATIENCE_S) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.get("/health/live")
        trust.load_cert_chain(files.client)
        with httpx.Client(base_url=server.url, verify=trust, timeout=PATIENCE_S) as client:
            assert client.get("/health/live").status_code == 200
    finally:
        assert server.stop() in CLEAN
    assert PASSWORD not in "".join(server.log)


@pytest.mark.parametrize(
    ("cert", "key", "password", "message"),
    [
        ("cert", "other_key", None, "is not that of the certificate"),
        ("cert", "locked", None, "is encrypted, and MTCP_TLS_KEY_PASSWORD is not set"),
        ("cert", "locked", "shut", "is encrypted, and MTCP_TLS_KEY_PASSWORD is wrong"),
        ("key", "key", None, "are not a PEM certificate and key"),
        ("cert", "cert", None, "are not a PEM certificate and key"),
    ],
)
def test_files_that_do_not_serve(
    files: Files, cert: str, key: str, password: str | None, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Tls.of(
            Settings(tls_cert=getattr(files, cert), tls_key=getattr(files, key), tls_key_password=password)
        )


def test_authorities_that_are_none(files: Files, tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("nothing")
    for path, message in ((tmp_path / "none.pem", "is not a PEM certificate"), (tmp_path / "x", "be read")):
        with pytest.raises(SettingsError, match=message):
            Tls.of(Settings(tls_cert=files.cert, tls_key=files.key, tls_client_ca=path))


def test_one_without_the_other(files: Files) -> None:
    for settings in ({"tls_cert": files.cert}, {"tls_key": files.key}):
        with pytest.raises(ValidationError, match="give both or neither"):
            Settings(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="needs tls_cert"):
        Settings(tls_client_ca=files.ca)


def test_grpc_takes_no_encrypted_key(files: Files) -> None:
    tls = Tls.of(Settings(tls_cert=files.cert, tls_key=files.locked, tls_key_password=PASSWORD))
    assert tls is not None
    with pytest.raises(SettingsError, match="gRPC cannot read an encrypted key"):
        tls.for_grpc()


@pytest.fixture
def same_log() -> Iterator[None]:
    """The command sets logging up for its process, which is this one."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("same_log")
def test_the_command_line_says_so_and_ends(bundle: Path, files: Files, tmp_path: Path) -> None:
    for options, message in (
        (["--tls-cert", tmp_path / "no.pem", "--tls-key", files.key], "no.pem cannot be read"),
        (["--tls-cert", files.cert], "give both or neither"),
        (["--api-keys-file", tmp_path / "no-keys"], "no-keys cannot be read"),
        (["--cors-origin", "a.example"], "is not an origin"),
    ):
        result = CliRunner().invoke(cli, ["serve", "-b", str(bundle), *map(str, options)])
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert "Traceback" not in result.stderr
