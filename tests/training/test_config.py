import re
from pathlib import Path

import pytest

from tests.training.tiny import tiny_model, tiny_run
from training.config import ConfigError, load_config, override, parse_config, shipped_configs
from training.model import MTCP, ModelConfig
from training.model.pretrained import WeightsError, check_init, initialise
from training.trainer import Trainer


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configs_are_valid(name: str) -> None:
    config = load_config(name, ["root=some/where"])
    assert config.data.train[0].root.startswith("some/where") or config.data.train[0].kind == "scenes"


def test_a_config_lies_on_its_base(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: scenes\nepochs: 7\nloss: {lambda_cos: 0.5}\n")
    config, base = load_config(str(tmp_path / "mine.yaml")), load_config("scenes")
    assert (config.epochs, config.loss.lambda_cos) == (7, 0.5)
    assert config.loss.scale == base.loss.scale
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    with pytest.raises(ConfigError, match="leads back to itself"):
        load_config(str(tmp_path / "loop.yaml"))


def test_entries_can_be_taken_out() -> None:
    config = load_config("scenes", ["~model.tasks.parsing", "~balancer.options", "balancer.name=dwa"])
    assert list(config.model.tasks) == ["semseg", "depth", "normals", "saliency"]
    assert config.balancer.options == {}
    with pytest.raises(ConfigError, match="there is no such entry"):
        load_config("scenes", ["~model.tasks.smell"])


def test_settings_of_an_earlier_version_still_load() -> None:
    plain = load_config("scenes").model_dump(mode="json")
    for key in ("devices", "activation_checkpointing", "compile", "log_every", "tensorboard"):
        del plain[key]
    del plain["balancer"]["update_interval"], plain["optim"]["accumulate"], plain["model"]["kind"]
    assert parse_config(plain, "old.pt") == load_config("scenes")


def test_the_papers_settings_are_the_defaults() -> None:
    config = load_config("nyud_swin_small", ["root=x"])
    assert (config.optim.lr, config.optim.weight_decay, config.optim.power) == (5e-5, 1e-4, 0.9)
    assert config.balancer.options == {"kappa": 2.5, "history": 3}
    assert config.data.batch_size == 2
    assert isinstance(config.model, ModelConfig)
    assert config.model.backbone.mask_aggregation == "sum_logits"
    assert config.loss.scale == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["epoch=3"], "epoch: no such setting"),
        (["epochs=many"], "epochs: Input should be a valid integer"),
        (["model.decoder.fusion=magic"], "model.decoder.fusion: Input should be 'sum' or 'dynamic'"),
        (["loss.scale.smell=1"], "unknown tasks"),
        (
            ["data.augment.paste={probability: 0.5, classes: [unicorn]}"],
            r"data\.augment\.paste: semseg has no class 'unicorn'; it has ",
        ),
        (["epochs=[1"], "scenes.yaml: while parsing"),
        (["seed=-1"], "seed: Input should be greater than or equal to 0"),
        (["loss.scale.normals=-1"], "loss.scale.normals: Input should be greater than or equal to 0"),
        (["loss.class_weights.parsing=[1,2]"], "has 2 weights, the network's task has 8 classes"),
        (
            ["loss.class_weights.depth=[1]"],
            "^scenes.yaml: loss.class_weights.depth has 1 weights, .* no classes",
        ),
        (["model.cfm=true", "model.tasks=null"], "^scenes.yaml: model.tasks: Input should be"),
        (["optim.lr=.inf"], "optim.lr: Input should be a finite number"),
        (["loss.lambda_cos=.inf"], "loss.lambda_cos: Input should be a finite number"),
    ],
)
def test_wrong_settings_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("scenes", overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: 2", "bad.yaml: while parsing"),
        (b"\xff\xfe\x00\x01", "bad.yaml: 'utf-8' codec"),
        (b"- 1\n- 2\n", "bad.yaml: not a mapping"),
        (b"base: 3\n", "bad.yaml: base must name another config, got 3"),
        (b"base: [scenes]\n", "bad.yaml: base must name another config"),
    ],
)
def test_a_damaged_config_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("wrong", ["data.val.5.split=val", "epochs=[1"])
def test_wrong_overrides_of_a_trained_config_are_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match="overrides: "):
        override(load_config("scenes"), [wrong])


def test_a_mandatory_root_and_an_unknown_config_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^a value is missing; give root=\.\.\.$"):
        load_config("mtcp_lite")
    with pytest.raises(ConfigError, match=r"one of: .*mtcp_lite, .*scenes"):
        load_config("mtcp_huge")


def test_sizes_follow_the_epoch() -> None:
    steps = "data.progressive=[{epoch: 0, height: 192, width: 256}, {epoch: 3, height: 240, width: 320}]"
    data = load_config("mtcp_lite", ["root=x", steps]).data
    assert data.size_at(2) == (192, 256)
    assert data.size_at(3) == (240, 320)
    assert load_config("mtcp_lite", ["root=x"]).data.size_at(100) == (288, 384)


def test_starting_weights_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    network = MTCP(tiny_model())
    with pytest.raises(WeightsError, match="neither a checkpoint, a local folder nor a hub id"):
        initialise(network, str(tmp_path / "nothing"))
    assert initialise(network, None) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("init=nosuch", r"init=nosuch: there is no such file or folder; give one, .*imagenet, "),
        ("init=runs/last.pt", "there is no such file"),
        ("init=runs/mine/model.safetensors", "there is no such file"),
        ("compile=nosuch", "compile: no backend 'nosuch'; there are .*inductor"),
        ("balancer.name=nosuch", "balancer: "),
    ],
)
def test_wrong_settings_are_told_before_data_are_looked_at(
    setting: str, message: str, tmp_path: Path
) -> None:
    nowhere = f"data.train=[{{kind: folder, root: {tmp_path / 'absent'}}}]"
    with pytest.raises((ConfigError, WeightsError), match=message):
        Trainer(tiny_run("balancer.options={}", nowhere, nowhere.replace("train", "val"), setting), tmp_path)
    check_init("facebook/mask2former-swin-small-ade-semantic")  # may be there


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ("epoch=3", "epoch: no such setting; there are name, model, data, loss"),
        ("data.augment.flips=1", "data.augment.flips: no such setting; there are flip, scale"),
        ("data.val.0.rooot=x", "data.val.0.rooot: no such setting; there are kind, root, split"),
        ("model.decoder.chanels=8", "model.decoder.chanels: no such setting; there are channels, "),
        ("model.tusks=1", "model.tusks: no such setting; there are tasks, kind"),
    ],
)
def test_an_unknown_setting_lists_the_known_ones(setting: str, known: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(known)):
        load_config("scenes", [setting])


def test_the_old_name_of_the_update_interval_works_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    assert load_config("scenes", ["balancer.every=3"]).balancer.update_interval == 3
    assert "balancer.every is now called balancer.update_interval" in caplog.text
