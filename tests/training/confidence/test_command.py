"""From a checkpoint to one with confidences, on procedural scenes: nothing else changes, and they tell."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset
from typer.testing import CliRunner

from tests.training.tiny import tiny_run
from training.checkpoint import load, load_network, save, strip
from training.cli import app
from training.confidence.command import add_confidence
from training.confidence.halves import RUN, calibration_half, folds, held_out_half
from training.config import ConfigError, RunConfig, load_config, override
from training.data import DataError
from training.evaluation import validation_sources
from training.model import MTCP, ModelConfig, build_network
from training.model.pretrained import initialise
from training.trainer import Trainer

SCENES = ["data.train.0.count=30", "data.val.0.count=40", "data.batch_size=4"]


@pytest.fixture(scope="module")
def settings() -> RunConfig:
    return tiny_run(*SCENES)


@pytest.fixture(scope="module")
def checkpoint(settings: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network to which all is background and nothing salient: where that is wrong can be seen."""
    path = tmp_path_factory.mktemp("run") / "last.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert isinstance(settings.model, ModelConfig)
        network = MTCP(settings.model)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1  # the statistics of these images are the running ones
        (source,) = validation_sources(settings.data, settings.tasks, check=False)
        with torch.no_grad():
            network.branches.head.weight.zero_()
            network.output_bias("semseg")[0] = network.output_bias("parsing")[0] = 5
            network.output_bias("saliency").fill_(-1)
            network.train()(torch.stack([source[index]["image"] for index in range(8)]))
    save(path, {"config": settings.model_dump(mode="json"), "model": network.state_dict()})
    return path


@pytest.fixture(scope="module", autouse=True)
def _few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.confidence.fit.STEPS", 300)
        yield


@pytest.fixture(scope="module")
def fitted(checkpoint: Path) -> tuple[Path, Path]:
    """What the command wrote: weights and report."""
    output, report = checkpoint.with_name("model.safetensors"), checkpoint.with_name("report.json")
    arguments = ["confidence", str(checkpoint), "-o", str(output), "--images=40", f"--report={report}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "confidence/ECE" in done.output
    assert "of the pixels" in done.output
    return output, report


def test_maps_and_weights_stay_as_they_are(checkpoint: Path, fitted: tuple[Path, Path]) -> None:
    before, after = load_network(checkpoint)[0], load_network(fitted[0])[0]
    assert isinstance(after, MTCP)
    assert (before.confident, after.confident) == ([], after.tasks)
    weights = after.state_dict()
    for name, value in before.state_dict().items():
        assert torch.equal(weights[name], value.half().to(value.dtype)), name
    assert {name for name in weights if name not in before.state_dict()} == {
        f"branches.confidence.{layer}.{part}" for layer in ("hidden", "output") for part in ("weight", "bias")
    }
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        predictions = after(image)
        after.branches.confidence = None
        for name, value in after(image).final.items():
            assert torch.equal(predictions.final[name], value)
    assert list(predictions.confidence) == [task.name for task in before.tasks]
    assert predictions.confidence["depth"].shape == (2, 1, 16, 24)


def test_predictable_errors_are_told_on_images_that_nobody_saw(fitted: tuple[Path, Path]) -> None:
    figures = json.loads(fitted[1].read_text())
    for task in ("saliency", "semseg"):
        found = {
            name: figures[task][f"confidence/{name}"] for name in ("accuracy", "ECE", "AUROC", "risk@80%")
        }
        assert 0.02 < found["accuracy"] < 0.98, task
        assert found["AUROC"] > 0.6, task
        assert found["ECE"] < 0.15, task
        assert found["risk@80%"] < 1 - found["accuracy"], task
    parts = figures["reliability"]["depth"]
    assert parts[0].keys() == {"confidence", "accuracy", "share"}
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert not any("bin" in name for name in figures["depth"])


def test_evaluate_reports_them_on_the_half_that_was_held_out(
    fitted: tuple[Path, Path], tmp_path: Path
) -> None:
    again, everything = tmp_path / "again.json", tmp_path / "all.json"
    for arguments in (["--held-out", f"--report={again}"], [f"--report={everything}"]):
        done = CliRunner().invoke(app, ["evaluate", str(fitted[0]), *arguments])
        assert done.exit_code == 0, done.output
    written, held_out = (json.loads(path.read_text()) for path in (fitted[1], again))
    for name, value in written["depth"].items():
        assert held_out["depth"][name] == pytest.approx(value, abs=5e-3), name  # weights were rounded
    assert json.loads(everything.read_text())["depth"]["rmse/invpt"] != held_out["depth"]["rmse/invpt"]


def test_a_half_without_images_is_said_to_be_one(fitted: tuple[Path, Path]) -> None:
    few = f"data.val.0.count={RUN}"
    done = CliRunner().invoke(app, ["evaluate", str(fitted[0]), "--held-out", few])
    assert done.exit_code == 2
    assert f"the first {RUN} images of each source are for calibration" in done.output


def test_halves_are_runs_of_neighbours(settings: RunConfig) -> None:
    (source,) = validation_sources(settings.data, settings.tasks, check=False)
    (first,), (second,) = calibration_half([source]), held_out_half([source])
    assert first.indices == list(range(RUN))
    assert second.indices == list(range(RUN, 2 * RUN))
    long = Subset(source, [*range(3), *range(2 * RUN, 2 * RUN + 2), *range(4 * RUN, 4 * RUN + 1)])
    other = Subset(source, [0, 1, 2 * RUN, 4 * RUN])
    assert folds([long, other]) == [0, 0, 0, 1, 1, 2, 3, 3, 0, 1]


def test_the_same_again_gives_the_same(checkpoint: Path, fitted: tuple[Path, Path]) -> None:
    network, config = load_network(checkpoint)
    again, _ = add_confidence(network, config, 40, "cpu", quiet=True)
    known = load(fitted[0])["model"]
    for name, value in again.state_dict().items():
        if "confidence" in name:
            torch.testing.assert_close(value.half(), known[name])


def test_what_cannot_be_done_is_said(settings: RunConfig, checkpoint: Path, tmp_path: Path) -> None:
    network = load_network(checkpoint)[0]
    bare = settings.model_copy(update={"data": settings.data.model_copy(update={"val": ()})})
    with pytest.raises(ConfigError, match="calibrated on a validation source"):
        add_confidence(network, bare, 4, "cpu", quiet=True)
    other = load_config("ial_nyuv2", ["root=data"])
    with torch.device("meta"):
        deeplab = build_network(other.model)
    with pytest.raises(ConfigError, match="network of kind mtcp"):
        add_confidence(deeplab, other, 4, "cpu", quiet=True)
    with pytest.raises(ConfigError, match="python -m training confidence"):
        Trainer(tiny_run("model.confidence=true"), tmp_path)


def test_tasks_without_labels_have_no_confidence(
    checkpoint: Path,
    fitted: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Saliency has labels in training images alone, normals and parsing have none."""
    monkeypatch.setattr("training.confidence.fit.STEPS", 2)
    output, again = tmp_path / "some.safetensors", tmp_path / "again.safetensors"
    labelled = ["data.train.0.read=[semseg,depth,saliency]", "data.val.0.read=[semseg,depth]"]
    arguments = ["confidence", str(checkpoint), "-o", str(output), "--images=2", *labelled]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "no confidence of normals, saliency, parsing: " in caplog.text
    strip(output, again)
    network, config = load_network(again)
    assert [task.name for task in network.confident] == ["semseg", "depth"]
    assert isinstance(config.model, ModelConfig)
    assert config.model.confidence == ("semseg", "depth")
    with torch.inference_mode():
        predictions = network(torch.zeros(1, 3, 64, 96))
    assert predictions.confidence.keys() == {"semseg", "depth"}
    refitted, metrics = add_confidence(load_network(fitted[0])[0], override(config, labelled), 2, "cpu", True)
    assert [task.name for task in refitted.confident] == ["semseg", "depth"]
    assert {task for task, values in metrics.items() if "confidence/ECE" in values} == {"semseg", "depth"}
    nothing = override(config, ["data.val.0.read=[]"])
    with pytest.raises(DataError, match=r"no task \(semseg, .*parsing\) has labels to calibrate"):
        add_confidence(network, nothing, 2, "cpu", quiet=True)


def test_confidences_are_of_tasks_of_the_network() -> None:
    with pytest.raises(ConfigError, match="confidence names 'edges', which is no task"):
        tiny_run("model.confidence=[depth,edges]")


def test_a_split_too_small_to_judge_by_says_so(
    checkpoint: Path, settings: RunConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.confidence.fit.STEPS", 2)
    small = override(settings, ["data.train.0.count=2", f"data.val.0.count={RUN}"])
    _, metrics = add_confidence(load_network(checkpoint)[0], small, 2, "cpu", quiet=True)
    assert "no validation source has more than 20 images: nothing is left to judge by" in caplog.text
    assert not any("confidence/ECE" in values for values in metrics.values())


def test_training_starts_from_the_weights_without_their_confidences(
    checkpoint: Path, fitted: tuple[Path, Path], settings: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fresh = build_network(settings.model)
    count = initialise(fresh, str(fitted[0]))
    assert "its confidences are left out; `python -m training confidence` fits new ones" in caplog.text
    before = load_network(checkpoint)[0].state_dict()
    assert count == len(before)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, before[name].half().to(value.dtype)), name
