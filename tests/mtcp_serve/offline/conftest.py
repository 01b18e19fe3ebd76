"""A clip to stream, and certificates."""

import ssl
from pathlib import Path

import pytest
import trustme

from tests.mtcp_serve.clips import write_clip


@pytest.fixture(scope="session")
def transport_stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Forty frames as MPEG-TS."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.ts", list(range(40))).read_bytes()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For a server on loopback whose certificate is trusted while the test lasts."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return context
