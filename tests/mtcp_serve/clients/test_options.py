"""What is wrong with what a client is given is said before it connects, in the same words by all of them."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtcp_serve.clients import AsyncGatewayClient, AsyncTritonClient, GatewayClient, TritonClient

KINDS = (GatewayClient, AsyncGatewayClient, TritonClient, AsyncTritonClient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_deadline_is_a_positive_time(kind: Any, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"deadline_s is {seconds}, it must be a positive"):
        kind(deadline_s=seconds)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["secret-of-mine\n", "", "secret of mine", "schlüssel"])
def test_a_key_that_no_header_can_carry(kind: Any, key: str) -> None:
    """With the line end of its file, most often."""
    with pytest.raises(ValueError, match=r"take \.strip\(\)") as caught:
        kind(api_key=key)
    assert not key or key.strip() not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_authorities_are_a_file_and_for_tls(kind: Any, tmp_path: Path) -> None:
    secure = "grpcs://127.0.0.1:1" if "Triton" in kind.__name__ else "https://127.0.0.1:1"
    with pytest.raises(FileNotFoundError, match=r"missing\.pem"):
        kind(secure, authorities=tmp_path / "missing.pem")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        kind(secure, authorities=tmp_path)
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ValueError, match=r"authorities are for TLS, where the address begins with .*s://"):
        kind(secure.replace("s://", "://"), authorities=tmp_path / "ca.pem")


def test_tasks_are_a_list_of_names() -> None:
    with GatewayClient("http://127.0.0.1:1") as client:
        with pytest.raises(TypeError, match=r"tasks is a list of names, such as \['depth'\]"):
            client.predict(b"an image", "depth")
        with pytest.raises(ValueError, match="name at least one task"):
            client.predict(b"an image", [])


@pytest.mark.parametrize("package", ["httpx", "tritonclient"])
def test_without_their_extra_the_clients_say_what_brings_it(package: str) -> None:
    program = f"import sys; sys.modules['{package}'] = None; import mtcp_serve.clients"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")
    assert package in ended.stderr.splitlines()[-1]
    assert "pip install 'mtcp-serve[clients]' brings what the clients need" in ended.stderr.splitlines()[-1]
