"""Files that people and programs look for beside the code say the same as the code."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import clients
import mtcp_serve.clients

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["version"]) == (PROJECT["name"], PROJECT["version"])
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"]


def test_the_old_names_of_the_clients_say_the_new_ones() -> None:
    with pytest.warns(FutureWarning, match=r"clients\.GatewayClient is mtcp_serve\.clients\.GatewayClient"):
        assert clients.GatewayClient is mtcp_serve.clients.GatewayClient
    with pytest.raises(AttributeError, match="no attribute 'Maps'"):
        _ = clients.Maps


def test_the_api_pages_render_with_what_programs_call(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "api.py"), "-o", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    page = (tmp_path / "mtcp_serve.html").read_text()
    for name in ("load", "Model.predict", "Model.apredict", "Prediction.overlay", "Bundle.edit"):
        assert f'id="{name}"' in page
    assert 'id="GatewayClient.predict"' in (tmp_path / "mtcp_serve" / "clients.html").read_text()
    assert 'id="Writer.finish"' in (tmp_path / "mtcp_serve" / "outputs" / "formats" / "base.html").read_text()
