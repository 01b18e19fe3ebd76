import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from typer.testing import CliRunner

from training.cli import app
from training.plot import PlotError, panels, plot_run, plot_weights, series
from training.reliability_plot import plot_reliability
from training.run_log import History, read_history


def write_run(folder: Path, encoder: bool = False) -> Path:
    history = History(folder, tensorboard=False)
    folder.mkdir()
    for epoch in range(3):
        row: dict[str, float | int] = {"epoch": epoch, "step": 10 * epoch}
        row |= {"loss/depth": 1 / (epoch + 1), "loss/semseg": float("nan") if epoch == 1 else 2.0}
        row |= {"weight/depth": 1.0, "weight/semseg": 1.0 + epoch}
        if encoder:
            row["encoder_weight/depth"] = 0.5
        if epoch == 2:
            row |= {"depth/rmse/mtcp": 0.5, "depth/rmse/invpt": 0.75, "semseg/mIoU": 0.25}
        history.epoch(row)
    return folder


def test_series_hold_what_there_is(tmp_path: Path) -> None:
    rows = read_history(write_run(tmp_path / "run") / "history.csv")
    assert series(rows, "loss/semseg") == ([0, 2], [2.0, 2.0])
    assert series(rows, "depth/rmse/invpt") == ([2], [0.75])
    assert series(rows, "no/such") == ([], [])


def test_panels_are_losses_weights_and_headline_metrics(tmp_path: Path) -> None:
    drawn = panels(read_history(write_run(tmp_path / "run", encoder=True) / "history.csv"))
    assert drawn == {
        "loss": ["loss/depth", "loss/semseg"],
        "task weight": ["weight/depth", "weight/semseg"],
        "encoder weight": ["encoder_weight/depth"],
        "mIoU (higher is better)": ["semseg/mIoU"],
        "rmse (lower is better)": ["depth/rmse/mtcp", "depth/rmse/invpt"],
    }


def test_a_run_is_drawn_as_svg_and_png(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert CliRunner().invoke(app, ["plot", str(run)]).exit_code == 0
    text = "".join(ElementTree.parse(run / "history.svg").getroot().itertext())
    assert all(word in text for word in ("task weight", "semseg", "rmse (lower is better)"))
    marks = (run / "history.svg").read_text().count("<use ")
    assert marks > 20, "a run that was validated once shows its points"
    plot_run(run, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (run / "history.svg").read_bytes()
    plot_run(run, tmp_path / "run.png")
    with Image.open(tmp_path / "run.png") as image:
        assert image.width > image.height
        assert len(image.getcolors(2**24) or ()) > 10


def test_weights_of_several_runs_share_a_picture(tmp_path: Path) -> None:
    runs = {label: write_run(tmp_path / label, encoder=label == "b") for label in "ab"}
    plot_weights(runs, tmp_path / "weights.svg")
    text = "".join(ElementTree.parse(tmp_path / "weights.svg").getroot().itertext())
    assert text.count("semseg") == 2


def test_nothing_to_draw_and_wrong_suffixes_are_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plot", str(tmp_path)])
    assert done.exit_code == 2
    assert "has no history.csv" in done.output.replace("\n", "")
    with pytest.raises(PlotError, match=r"\.png or \.svg"):
        plot_run(write_run(tmp_path / "run"), tmp_path / "run.bmp")


def test_reliability_of_a_report(tmp_path: Path) -> None:
    pairs = ((0.25, 0.3, 0.4), (1.0, 0.9, 0.6))
    bins = [dict(zip(("confidence", "accuracy", "share"), values, strict=True)) for values in pairs]
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"depth": {}, "reliability": {"depth": bins, "semseg": bins[:1]}}))
    assert CliRunner().invoke(app, ["plot", str(report)]).exit_code == 0
    picture = (tmp_path / "report.svg").read_text()
    ElementTree.fromstring(picture)
    assert ">depth</text>" in picture
    assert ">semseg</text>" in picture
    plot_reliability(report, tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as image:
        assert image.width > image.height
    report.write_text(json.dumps({"depth": {"absrel": 1}}))
    with pytest.raises(PlotError, match="has no reliability curves"):
        plot_reliability(report, tmp_path / "no.svg")
    report.write_text("[]")
    with pytest.raises(PlotError, match="is not a report of evaluate"):
        plot_reliability(report, tmp_path / "no.svg")
