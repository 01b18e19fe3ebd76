import json
from pathlib import Path

import pytest

from training.report import (
    ReportError,
    gains,
    headlines,
    markdown_table,
    published_value,
    read_single_tasks,
    write_json,
)
from training.tasks import make_task
from training.weight_choice import AVERAGE, RAW, compare

TASKS = [make_task("semseg", "nyu40"), make_task("depth"), make_task("normals")]
FIGURES = {
    "semseg": {"mIoU": 0.5, "pixel_accuracy": 0.7},
    "depth": {"rmse/mtcp": 0.4, "rmse/invpt": 0.5},
    "normals": {"mErr/mtcp": 20.0, "mErr/invpt": 20.0},
}
SINGLE = {
    "semseg": {"mIoU": 0.4},
    "depth": {"rmse/mtcp": 0.5, "rmse/invpt": 0.5},
    "normals": {"mErr/mtcp": 25.0, "mErr/invpt": 20.0},
}


def test_delta_mtl_by_protocol() -> None:
    found = gains(FIGURES, SINGLE, TASKS)
    assert found == pytest.approx({"mtcp": (25 + 20 + 20) / 3, "invpt": 25 / 3})
    with pytest.raises(ReportError, match="no validation source has a label"):
        gains({}, SINGLE, TASKS)


def test_depth_whose_labels_are_all_far_counts_in_the_protocol_that_scores_it() -> None:
    far = FIGURES | {"depth": {"rmse/invpt": 0.6}}
    assert headlines(far, TASKS, "mtcp").keys() == {"semseg", "normals"}
    assert headlines(far, TASKS, "invpt")["depth"] == 0.6
    found = gains(far, SINGLE, TASKS)
    assert found["mtcp"] == pytest.approx((25 + 20) / 2)
    assert found["invpt"] == pytest.approx((25 - 20 + 0) / 3)
    assert gains({"depth": {"rmse/invpt": 0.6}}, SINGLE, TASKS).keys() == {"invpt"}
    assert compare({AVERAGE: far, RAW: FIGURES | {"depth": {"rmse/invpt": 9.0}}}, TASKS) == (AVERAGE, 0)
    with pytest.raises(ReportError, match="reports of depth lack the metrics of protocol mtcp"):
        gains(FIGURES, SINGLE | {"depth": {"rmse/invpt": 0.5}}, TASKS)


def test_single_task_reports_are_what_evaluate_wrote(tmp_path: Path) -> None:
    for name in SINGLE:
        write_json(tmp_path / f"{name}.json", {name: SINGLE[name]}, "any", None)
    pairs = [f"{name}={tmp_path / name}.json" for name in SINGLE]
    assert read_single_tasks(pairs, TASKS) == SINGLE
    with pytest.raises(ReportError, match="report of normals too"):
        read_single_tasks(pairs[:2], TASKS)
    with pytest.raises(ReportError, match="no report with metrics of 'depth' there"):
        read_single_tasks([f"depth={tmp_path}/semseg.json"], TASKS)


def test_a_report_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    write_json(report, FIGURES, "any", None)
    before = report.read_bytes()
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(OSError, match="No space left"):
        write_json(report, SINGLE, "any", None)
    assert report.read_bytes() == before
    assert list(tmp_path.iterdir()) == [report]


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_the_papers_figures_stand_beside_ours(tmp_path: Path) -> None:
    write_json(tmp_path / "out.json", FIGURES, "nyud-swin-small", {"mtcp": 1.0})
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["delta_mtl"] == {"mtcp": 1.0}
    assert written["published"]["MT-CP (paper, Table 1)"]["depth"] == 0.4316
    lines = markdown_table(FIGURES, "nyud-swin-small", TASKS).splitlines()
    assert "| depth | rmse/mtcp | 0.4000 | 0.4316 | 0.4923 |" in lines
    assert "| depth | rmse/invpt | 0.5000 |  |  |" in lines, "the paper's depth is not in this protocol"
    assert markdown_table(FIGURES, "mine", TASKS).splitlines()[2] == "| semseg | mIoU | 0.5000 |"


def test_published_values_belong_to_headlines() -> None:
    row = "MT-CP (paper, Table 1)"
    assert published_value("nyud-swin-small", row, TASKS[0], "mIoU") == 0.5625
    assert published_value("nyud-swin-small", row, TASKS[0], "pixel_accuracy") is None
