"""A sweep runs each row once, goes on where it was cut, and tells means and deviations."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.tiny import RUN
from training.balancing import build_balancer
from training.cli import app
from training.config import ConfigError, shipped_configs
from training.model import ModelConfig
from training.sweep import SweepConfig, load_sweep, run_sweep, write_results
from training.sweep.config import slug
from training.sweep.results import DELTA, GAIN, best_row, collect, spread, table
from training.sweep.runner import runs
from training.tasks import make_task
from training.trainer import LAST, Trainer

TASKS = [make_task("depth"), make_task("normals")]


def plan() -> SweepConfig:
    alone = [f"~model.tasks.{name}" for name in ("semseg", "saliency", "parsing")]
    return SweepConfig.model_validate(
        {
            "name": "tiny",
            "config": "scenes",
            "seeds": [0, 1],
            "overrides": [*RUN, *alone, "epochs=1", "data.samples_per_epoch=2", "data.val.0.count=1"],
            "rows": {
                "both": [],
                "only depth": ["~model.tasks.normals", "model.cfm=false"],
                "only normals": ["~model.tasks.depth", "model.cfm=false"],
            },
            "single_task": {"depth": "only depth", "normals": "only normals"},
            "test": ["data.val.0.count=2"],
        }
    )


@pytest.mark.parametrize("name", sorted(shipped_configs("sweeps")))
def test_every_row_of_a_shipped_sweep_is_a_valid_run(name: str) -> None:
    sweep = load_sweep(name)
    for row in sweep.rows:
        config = sweep.run_config(row, 3, ("root=some/where",))
        assert config.seed == 3
        chosen = config.balancer
        build_balancer(chosen.name, [task.name for task in config.tasks], chosen.options)


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_single_task_networks_of_the_papers_tables_are_plain(name: str) -> None:
    sweep = load_sweep(name)
    for task, row in sweep.single_task.items():
        config = sweep.run_config(row, 0, ("root=some/where",))
        assert isinstance(config.model, ModelConfig)
        assert list(config.model.tasks) == [task]
        assert (config.model.cfm, config.model.srm) == (False, False)
        assert (config.balancer.name, config.balancer.options) == ("equal", {})


def write_report(sweep: SweepConfig, output: Path, row: str, seed: int, rmse: float, error: float) -> None:
    run = next(run for run in runs(sweep, output) if (run.row, run.seed) == (row, seed))
    figures = {"depth": {"rmse/invpt": rmse}, "normals": {"mErr/invpt": error}}
    if row.startswith("only"):
        figures = {row.split()[1]: figures[row.split()[1]]}
    run.folder.mkdir(parents=True)
    (run.folder / "report.json").write_text(json.dumps({"config": {}, "val": figures}))


def test_seeds_come_first_so_that_a_cut_grid_is_complete(tmp_path: Path) -> None:
    order = [(run.row, run.seed) for run in runs(plan(), tmp_path)]
    assert order == [(row, seed) for seed in (0, 1) for row in ("both", "only depth", "only normals")]


def test_means_deviations_and_delta_mtl_of_the_same_seed(tmp_path: Path) -> None:
    sweep = plan()
    for seed, (rmse, error) in enumerate([(0.5, 30.0), (0.7, 20.0)]):
        write_report(sweep, tmp_path, "both", seed, rmse, error)
        write_report(sweep, tmp_path, "only depth", seed, 1.0, 0.0)
    write_report(sweep, tmp_path, "only normals", 0, 0.0, 40.0)
    figures = collect(sweep, TASKS, tmp_path)["val"]
    assert figures["both"]["depth"] == pytest.approx((0.6, 0.02**0.5, 2))
    mean, deviation, seeds = figures["both"][DELTA]
    assert mean == pytest.approx((50 + 25) / 2)
    assert (deviation, seeds) == (None, 1), "seed 1 has no single-task normals"
    assert best_row(figures) == "both"
    lines = table(sweep, TASKS, figures).splitlines()
    assert lines[0] == "|  | depth rmse ↓ | normals mErr ↓ | Delta-MTL % | seeds |"
    assert lines[2] == "| both | 0.6000 ± 0.1414 | 25.00 ± 7.07 | 37.50 | 2 |"


def test_results_that_cannot_be_written_leave_the_last_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, files = plan(), [tmp_path / "results.json", tmp_path / "table.md"]
    monkeypatch.setattr("training.sweep.results.plot_weights", lambda *_: None)
    write_report(sweep, tmp_path, "both", 0, 0.5, 30.0)
    write_results(sweep, TASKS, tmp_path)
    before = [path.read_bytes() for path in files]
    write_report(sweep, tmp_path, "both", 1, 0.7, 20.0)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_results(sweep, TASKS, tmp_path)
    assert [path.read_bytes() for path in files] == before
    write_results(sweep, TASKS, tmp_path)
    assert "2 of 6 runs finished" in files[1].read_text(encoding="utf-8")


def test_the_gain_over_a_reference_is_taken_seed_by_seed(tmp_path: Path) -> None:
    sweep = plan()
    sweep = sweep.model_copy(update={"rows": {**sweep.rows, "other": ()}, "reference": "both"})
    for seed, (rmse, other) in enumerate([(0.5, 0.4), (0.9, 0.6)]):
        write_report(sweep, tmp_path, "both", seed, rmse, 30.0)
        write_report(sweep, tmp_path, "other", seed, other, 30.0)
        write_report(sweep, tmp_path, "only depth", seed, 1.0, 0.0)
        write_report(sweep, tmp_path, "only normals", seed, 0.0, 30.0)
    figures = collect(sweep, TASKS, tmp_path)["val"]
    # Delta-MTL: both 25 and 5, other 30 and 20
    assert figures["other"][GAIN] == pytest.approx((10.0, 50**0.5, 2))
    assert GAIN not in figures["both"]
    lines = table(sweep, TASKS, figures).splitlines()
    assert lines[0].endswith("| Delta-MTL % | gain over both | seeds |")
    assert lines[2].endswith("| 15.00 ± 14.14 |  | 2 |")
    assert lines[-1].endswith("| 25.00 ± 7.07 | 10.00 ± 7.07 | 2 |")


def test_one_value_has_no_deviation() -> None:
    assert spread([2.0]) == (2.0, None, 1)
    assert spread([1.0, 3.0]) == pytest.approx((2.0, 2**0.5, 2))


def test_a_sweep_that_was_cut_goes_on_and_is_told_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, output = plan().model_copy(update={"seeds": (0,)}), tmp_path / "out"
    assert not run_sweep(sweep, (), output, until=0.0)
    assert not list(output.rglob("report.json"))
    first = output / "both" / "seed0"
    started: list[Path] = []
    original = Trainer.train

    def counted(self: Trainer, until: float = float("inf")) -> bool:
        started.append(self.run)
        return original(self, 0.0 if len(started) == 1 else until)  # cut after a step

    monkeypatch.setattr(Trainer, "train", counted)
    assert not run_sweep(sweep, (), output)
    assert (first / LAST).exists()
    assert run_sweep(sweep, (), output)
    assert [run.parent.name for run in started] == ["both", "both", "only-depth", "only-normals"]
    assert run_sweep(sweep, (), output)
    assert len(started) == 4, "finished runs are not run again"
    report = json.loads((first / "report.json").read_text())
    assert report["val"].keys() - {"disparity", "geometry"} == {"depth", "normals"}
    assert report["test"]["depth"] != report["val"]["depth"]
    assert (first / "stripped.pt").exists()
    assert not (first / LAST).exists()
    elsewhere = ("data.workers=1", "device=cuda:0", "validate_every=3", "cuda_graphs=true")
    assert run_sweep(sweep, elsewhere, output), "what was learned does not depend on these"
    assert len(started) == 4
    for other, words in (("optim.lr=0.5", r"optim\.lr: .* -> 0\.5"), ("epochs=2", "epochs: 1 -> 2")):
        with pytest.raises(ConfigError, match=rf"a finished run with other settings \({words}\); choose"):
            run_sweep(sweep, (*elsewhere, other), output)
    with pytest.raises(ConfigError, match=r"\(minutes: None -> 3\.0\)"):
        run_sweep(sweep, ("minutes=3",), output)

    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(sweep.model_dump(mode="json")))
    done = CliRunner().invoke(app, ["sweep", str(path), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert "Largest mean Delta-MTL on val" in done.output
    results = json.loads((output / "results.json").read_text())
    assert results["results"]["test"]["both"]["depth"][2] == 1
    assert (output / "table.md").read_text().startswith("# tiny\n\n3 of 3 runs finished.\n")
    assert "both" in (output / "weights.svg").read_text()


def test_one_that_its_limit_cuts_short_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(plan().model_dump(mode="json")))
    command = ["sweep", str(path), "--output", str(tmp_path / "out"), "--limit-minutes", "0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "Not finished: the same command goes on." in done.output


def test_wrong_sweeps_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give a YAML file or one of: .*table4"):
        load_sweep("table9")
    (tmp_path / "bad.yaml").write_text("{name: x, config: scenes, rows: {a b: [], a-b: []}}")
    with pytest.raises(ConfigError, match="share a folder"):
        load_sweep(str(tmp_path / "bad.yaml"))
    with pytest.raises(ConfigError, match="leave devices at 1"):
        run_sweep(plan(), ("devices=2",), tmp_path)
    wrong = {"rows": plan().rows | {"last": ("balancer.options.kapa=7.5",)}}
    with pytest.raises(ConfigError, match="row 'last': balancer: balancer 'lps' has no option 'kapa'"):
        run_sweep(plan().model_copy(update=wrong), (), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert slug("LPS, kappa 7.5") == "lps-kappa-7.5"
