"""Files that people and programs look for beside the code say the same as the code."""

import tomllib
from pathlib import Path

import yaml

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
    import pytest

    import clients
    import mtcp_serve.clients

    with pytest.warns(FutureWarning, match=r"clients\.GatewayClient is mtcp_serve\.clients\.GatewayClient"):
        assert clients.GatewayClient is mtcp_serve.clients.GatewayClient
    with pytest.raises(AttributeError, match="no attribute 'Maps'"):
        _ = clients.Maps
