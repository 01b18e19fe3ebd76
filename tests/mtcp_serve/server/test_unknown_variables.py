"""Variables that look like settings and are none are told of when the server starts, and nothing else is."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtcp_serve.cli import cli
from mtcp_serve.server.renamed import RENAMED
from mtcp_serve.server.settings import Settings
from mtcp_serve.server.unknown_variables import unknown_variables

ROOT = Path(__file__).parents[3]
_READ = re.compile(r"environ(?:\.get\(|\[)\"(MTCP_\w+)\"")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MTCP_BATCH_SZE", "did you mean MTCP_MAX_BATCH_SIZE?"),
        ("MTCP_PROT", "did you mean MTCP_PORT?"),
        ("mtcp_deadline", "did you mean MTCP_DEADLINE_S?"),
        ("MTCP_API_KEY", "did you mean MTCP_API_KEYS?"),
        ("MTCP_XYZZY", "mtcp-serve serve --help has the settings"),
    ],
)
def test_the_nearest_setting_is_named(name: str, hint: str) -> None:
    assert list(unknown_variables([name, "PATH", "MTCPX"])) == [
        f"{name} is no setting and has no effect; {hint}"
    ]


def test_what_somebody_reads_is_not_told_of() -> None:
    settings = [f"MTCP_{name.upper()}" for name in (*Settings.model_fields, *RENAMED)]
    read = {
        name
        for folder in ("mtcp_serve", "clients", "training", "export", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for name in _READ.findall(path.read_text())
    }
    assert {"MTCP_LOG_FORMAT", "MTCP_TEST_IMAGE"} <= read
    assert list(unknown_variables([*settings, *map(str.lower, settings), *read])) == []


def test_services_of_kubernetes_are_not_told_of() -> None:
    names = [
        *("MTCP_SERVICE_HOST", "MTCP_SERVICE_PORT", "MTCP_SERVICE_PORT_HTTP", "MTCP_PORT_8000_TCP_ADDR"),
        *("MTCP_TRITON_SERVICE_HOST", "MTCP_TRITON_SERVICE_PORT", "MTCP_TRITON_PORT"),
    ]
    assert list(unknown_variables(names)) == []
    assert len(list(unknown_variables(["MTCP_TRITON_PORT"]))) == 1


def test_the_server_says_so_once_without_the_value_and_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MTCP_BATCH_SZE", "8")
    monkeypatch.setenv("MTCP_API_KEY", "very-secret")
    said = CliRunner().invoke(cli, ["serve", "--bundle", str(tmp_path)], env={"COLUMNS": "200"})
    assert said.stderr.count("notice: MTCP_BATCH_SZE is no setting and has no effect; did you mean") == 1
    assert said.stderr.count("notice: MTCP_API_KEY is no setting") == 1
    assert "very-secret" not in said.output + said.stderr
    assert "manifest.json" in said.stderr  # it went on to the bundle
    assert said.exit_code == 2
