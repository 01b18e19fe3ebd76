"""Former flags work, alone and with a value, and say their new names."""

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from export.renamed_flags import RENAMED, RenamedFlags


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()

    @app.command(cls=RenamedFlags)
    def main(
        source: str,
        images: Annotated[Path | None, typer.Option()] = None,
        fp16_threshold: Annotated[float, typer.Option()] = 0.5,
        fp16_weights: Annotated[bool, typer.Option("--fp16-weights")] = False,
    ) -> None:
        typer.echo(f"{source} {images} {fp16_threshold} {fp16_weights}")

    return app


@pytest.mark.parametrize(
    "options", [["--photos", "a", "--half-threshold=0.2"], ["--photos=a", "--half-threshold", "0.2"]]
)
def test_they_work_with_a_notice(options: list[str], app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["x", *options, "--half-weights"])
    assert result.stdout == "x a 0.2 True\n"
    for former, name in RENAMED.items():
        assert f"notice: {former} is now called {name};" in result.stderr


def test_what_stands_after_two_dashes_is_left_alone(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--images", "a", "--", "--photos"])
    assert (result.stdout, result.stderr) == ("--photos a 0.5 False\n", "")
