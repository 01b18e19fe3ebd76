"""Settings: one name each, for option, variable and argument; the names of the version before."""

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from mtcp_serve.cli import cli
from mtcp_serve.cli.serve import PANELS
from mtcp_serve.inference.images import ImageLimits
from mtcp_serve.server.renamed import RENAMED, RenamedWarning
from mtcp_serve.server.settings import Settings

SECRETS = {"api_keys", "tls_key_password"}


def test_every_setting_is_an_option_but_the_secrets() -> None:
    options = [name for names in PANELS.values() for name in names]
    assert len(set(options)) == len(options)
    assert set(options) == Settings.model_fields.keys() - SECRETS


def test_the_help_is_grouped_and_has_no_old_name() -> None:
    said = CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "200"}).output
    panels = [line.split("\u2500 ")[1].split(" \u2500")[0] for line in said.splitlines() if "\u256d" in line]
    assert panels == ["Options", *PANELS]
    assert "--queue-size " in said
    for old in ("--queue ", "--uploads", "--micro-batch", "--threads", "--deadline "):
        assert old not in said


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_works_and_says_so(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    with pytest.warns(RenamedWarning, match=f"{old} is called {new} now"):
        assert getattr(Settings.model_validate({old: 3}), new) == 3
    monkeypatch.setenv(f"MTCP_{old.upper()}", "5")
    with pytest.warns(RenamedWarning, match=f"MTCP_{old.upper()} is called MTCP_{new.upper()} now"):
        assert getattr(Settings(), new) == 5
    monkeypatch.setenv(f"MTCP_{new.upper()}", "6")  # the new one goes before, without a word
    assert getattr(Settings(), new) == 6


def test_both_names_of_a_setting_are_one_too_many() -> None:
    with pytest.raises(ValidationError, match="queue is the old name of queue_size; give queue_size only"):
        Settings.model_validate({"queue": 3, "queue_size": 3})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--queue", "--queue-size"),
        ("--micro-batch-delay", "--max-queue-delay-ms"),
        ("--deadline", "--deadline-s"),
        ("--upload-time", "--upload-s"),
    ],
)
def test_an_old_option_works_and_says_so(old: str, new: str) -> None:
    told = f"notice: {old} is called {new} now"
    refused = CliRunner().invoke(cli, ["serve", old, "-1"])
    assert told in refused.stderr
    assert f"{new[2:].replace('-', '_')}: Input should be greater" in refused.stderr
    assert refused.exit_code == 2
    both = CliRunner().invoke(cli, ["serve", old, "1", new, "1"])
    assert f"{old} is the old name of {new}; give {new} only" in both.stderr
    assert both.exit_code == 2


def test_an_old_variable_is_told_of_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCP_UPLOADS", "0")
    refused = CliRunner().invoke(cli, ["serve"])
    assert "notice: MTCP_UPLOADS is called MTCP_MAX_CONCURRENT_UPLOADS now" in refused.stderr
    assert refused.exit_code == 2


def test_the_limits_of_images_are_settings() -> None:
    settings = Settings(max_bytes=1, max_pixels=2, max_side=3, decode_s=4)
    assert settings.image_limits == ImageLimits(max_bytes=1, max_pixels=2, max_side=3, max_seconds=4)
    assert Settings().image_limits == ImageLimits()
