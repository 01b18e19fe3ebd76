import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.training.tiny import RUN, tiny_run
from training.checkpoint import load_network
from training.cli import app
from training.trainer import LAST, Trainer, TrainingError

runner = CliRunner()


def test_train_evaluate_and_strip_work_together(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = runner.invoke(
        app, ["train", "scenes", *RUN, "epochs=1", "data.samples_per_epoch=2", "--run", str(run)]
    )
    assert done.exit_code == 0, done.output
    slim = tmp_path / "slim.pt"
    assert runner.invoke(app, ["strip", str(run / LAST), "-o", str(slim)]).exit_code == 0
    old = tmp_path / "old.pt"
    assert runner.invoke(app, ["slim", str(run / LAST), "-o", str(old)]).exit_code == 0
    assert old.read_bytes() == slim.read_bytes()
    report = tmp_path / "new" / "folder" / "report.json"
    done = runner.invoke(app, ["evaluate", str(slim), "data.val.0.count=3", "--report", str(report)])
    assert done.exit_code == 0, done.output
    figures = json.loads(report.read_text())
    assert figures.keys() - {"disparity", "geometry"} == {"semseg", "depth", "normals", "saliency", "parsing"}
    assert "mErr" in done.output
    other = tmp_path / "other.json"
    bare = ["evaluate", str(slim), "data.val.0.count=3", "--plain", "--without-cfm", "--report", str(other)]
    assert runner.invoke(app, bare).exit_code == 0
    plain = json.loads(other.read_text())
    assert plain["depth"] != figures["depth"]
    assert plain["normals"] != figures["normals"]  # which are never refined: it is the fusion
    against_itself = [f"--single-task={name}={report}" for name in load_network(slim)[1].model.tasks]
    table = tmp_path / "table.md"
    done = runner.invoke(
        app, ["evaluate", str(slim), "data.val.0.count=3", *against_itself, "--table", str(table)]
    )
    assert done.exit_code == 0, done.output
    assert "| all | Delta-MTL/mtcp % | 0.0000 |" in table.read_text()
    done = runner.invoke(app, ["evaluate", str(slim), against_itself[0]])
    assert done.exit_code == 2
    assert "Delta-MTL needs a --single-task report of depth" in done.output.replace("\n", " ")
    done = runner.invoke(app, ["evaluate", str(slim), "model.tasks.semseg=nyu40"])
    assert done.exit_code == 2
    assert "the checkpoint's network cannot be changed" in done.output.replace("\n", " ")
    assert load_network(slim)[1].data.val[0].count == 2  # the override was for the evaluation alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no_such_config"], "no config 'no_such_config'"),
        (["train", "scenes", "epochs=zero"], "epochs: Input should be a valid integer"),
        (["train", "mtcp_lite", "root=/nowhere"], "/nowhere"),
        (["train", "scenes", "device=cudaa"], "device cudaa: torch knows no such device"),
        (["train", "scenes", "epoch=3"], "epoch: no such setting; there are name, model, data, "),
        (["train", "scenes", "optim.rate=3"], "optim.rate: no such setting; there are lr, encoder_lr, "),
        (["train", "scenes", "minutes=0"], "minutes: a budget must be above 0 minutes"),
        (["train", "scenes", *RUN, "compile=magic"], "compile: no backend 'magic'; there are "),
        (["train", "scenes", *RUN, "model.backbone.encoder=magic"], "model: unknown encoder 'magic'"),
        (["train", "scenes", *RUN, "--run", f"{__file__}/run"], "Not a directory"),
        (["evaluate", "none.pt"], "no checkpoint at none.pt"),
        (["evaluate", "[/none].pt"], "no checkpoint at [/none].pt"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(arguments: list[str], message: str) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", "")
    assert "Traceback" not in done.output


def test_a_missing_device_and_a_broken_run_have_statuses_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = runner.invoke(app, ["train", "scenes", "device=meta"])
    assert done.exit_code == 3
    assert "device meta: torch sees no such device here" in done.output.replace("\n", "")
    monkeypatch.setattr(Trainer, "_train_step", _diverge)
    done = runner.invoke(app, ["train", "scenes", *RUN, "--run", str(tmp_path)])
    assert done.exit_code == 1
    assert "lower optim.lr" in done.output


def test_a_disk_that_fills_up_breaks_a_run_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / LAST))

    monkeypatch.setattr("training.checkpoint.save", full)
    done = runner.invoke(app, ["train", "scenes", *RUN, "--run", str(tmp_path)])
    assert done.exit_code == 1
    assert "No space left on device" in done.output
    assert "the same command goes on" in done.output.replace("\n", " ")


def _diverge(self: Trainer, batch: object) -> None:
    raise TrainingError("lower optim.lr")


def test_help_does_without_torch() -> None:
    """A process of its own: this one has torch already."""
    code = (
        "import sys; from typer.testing import CliRunner; from training.cli import app\n"
        "for name in ([], ['train'], ['confidence'], ['strip'], ['sweep'], ['pseudo-label']):\n"
        "    done = CliRunner().invoke(app, [*name, '--help']); assert done.exit_code == 0, done.output\n"
        "assert not {'torch', 'timm', 'matplotlib', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_evaluation_without_sources_or_labels_says_so(tmp_path: Path) -> None:
    Trainer(tiny_run("data.val=[]"), tmp_path).save()
    evaluate = ["evaluate", str(tmp_path / LAST), "--report", str(tmp_path / "report.json")]
    done = runner.invoke(app, evaluate)
    assert done.exit_code == 2
    assert "the checkpoint names no validation source" in done.output
    (tmp_path / "photos" / "images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "images" / "a.jpg")
    (tmp_path / "photos" / "splits").mkdir()
    (tmp_path / "photos" / "splits" / "val.txt").write_text("a\n")
    source = f"data.val=[{{kind: folder, root: {tmp_path / 'photos'}, split: val}}]"
    done = runner.invoke(app, [*evaluate, source])
    assert done.exit_code == 2
    assert "no validation source has a label of any task" in done.output
    assert not (tmp_path / "report.json").exists()
    done = runner.invoke(app, [*evaluate, "data.val=[{kind: scenes, split: val, count: 1}]"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.json").exists()


def test_a_damaged_checkpoint_does_not_resume(tmp_path: Path) -> None:
    Trainer(tiny_run(), tmp_path).save()
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:1000])
    done = runner.invoke(app, ["train", "scenes", *RUN, "--run", str(tmp_path)])
    assert done.exit_code == 2
    assert "not a readable checkpoint" in done.output.replace("\n", "")
    (tmp_path / LAST).write_bytes(b"no pickle")
    done = runner.invoke(app, ["evaluate", str(tmp_path / LAST)])
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert said.endswith("is not a readable checkpoint: damaged, or not what training wrote")


def test_a_run_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    done = runner.invoke(app, ["train", "scenes", *RUN, "--run", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert done.output.split("error: ")[1].replace("\n", "") == f"{tmp_path / 'run'}: File exists"


def test_standard_errors_and_differences_are_told(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        Trainer(tiny_run(f"seed={seed}", "data.val.0.count=4"), tmp_path / name).save()
    one, other = (str(tmp_path / name / LAST) for name in ("one", "other"))
    report, table = tmp_path / "report.json", tmp_path / "table.md"
    written = ["--report", str(report), "--table", str(table)]
    assert runner.invoke(app, ["evaluate", one, *written]).exit_code == 0
    plain = json.loads(report.read_text())
    done = runner.invoke(app, ["evaluate", one, "--standard-errors", *written])
    assert done.exit_code == 0, done.output
    trusted = json.loads(report.read_text())
    errors = trusted.pop("standard_errors")
    assert {task: {name: pytest.approx(value) for name, value in metrics.items()}
            for task, metrics in plain.items()} == trusted  # fmt: skip
    assert 0 < errors["depth"]["absrel"] < plain["depth"]["absrel"]
    assert table.read_text().startswith("| task | metric | value | ± |\n")
    done = runner.invoke(app, ["evaluate", one, "--against", other, *written])
    assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())
    assert found["standard_errors"] == errors
    against = found["against"]
    assert against["name"] == other
    assert against["differences"]["depth"]["absrel"] != 0
    assert against["standard_errors"]["depth"]["absrel"] > 0
    assert f"| value | ± | less {other} | ± |" in table.read_text()
    assert runner.invoke(app, ["evaluate", one, "--against", one, *written]).exit_code == 0
    itself = json.loads(report.read_text())["against"]
    for what in ("differences", "standard_errors"):
        assert {value for metrics in itself[what].values() for value in metrics.values()} == {0}


def test_networks_of_other_tasks_do_not_compare(tmp_path: Path) -> None:
    Trainer(tiny_run(), tmp_path / "one").save()
    Trainer(tiny_run("model.tasks.semseg=objects_rooms"), tmp_path / "other").save()
    one, other = (str(tmp_path / name / LAST) for name in ("one", "other"))
    done = runner.invoke(app, ["evaluate", one, "--against", other])
    assert done.exit_code == 2
    assert "its tasks or their classes are others" in done.output.replace("\n", " ")
