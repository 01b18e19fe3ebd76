"""compose.yaml: accepted by the Compose specification's schema, and fitting the image and the code."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import COMPOSE, DOCKERFILE, read, settings_of, shutdown_s

SERVICES: dict[str, Any] = read(COMPOSE)["services"]
GATEWAYS = {name: each for name, each in SERVICES.items() if name.startswith("gateway")}


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_schema_accepts_it() -> None:
    done = check(COMPOSE)
    assert done.returncode == 0, done.stdout


def test_the_schema_refuses_slips(tmp_path: Path) -> None:
    wrong = read(COMPOSE)
    wrong["services"]["gateway"]["read_onyl"] = True
    wrong["services"]["triton"]["tmpfs"] = 5
    path = tmp_path / "compose.yaml"
    path.write_text(yaml.safe_dump(wrong))
    done = check(path)
    assert done.returncode == 1
    assert "read_onyl" in done.stdout
    assert "services.triton" in done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["healthcheck"]["test"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    assert f" AS {service['build']['target']}\n" in DOCKERFILE.read_text()


def test_profiles_and_order() -> None:
    assert {name: each["profiles"] for name, each in SERVICES.items()} == {
        "gateway": ["cpu"],
        "gateway-of-triton": ["triton"],
        "triton": ["triton"],
    }
    assert SERVICES["gateway-of-triton"]["depends_on"] == {"triton": {"condition": "service_healthy"}}
    assert "ports" not in SERVICES["triton"]


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_gateway_runs_with_these_settings(name: str) -> None:
    service = GATEWAYS[name]
    settings = settings_of(service["environment"])
    assert service["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert service["secrets"] == ["api_keys"]
    assert str(settings.api_keys_file) == "/run/secrets/api_keys"
    assert float(service["stop_grace_period"].removesuffix("s")) > shutdown_s(settings)
    for address in settings.triton:
        host, _, port = address.partition(":")
        assert port in SERVICES[host]["expose"]
