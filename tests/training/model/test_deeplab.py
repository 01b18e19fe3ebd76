from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from typer.testing import CliRunner

from tests.training.data.trees import all_maps, photo, write_record, write_split
from training import checkpoint
from training.balancing import Engine, build_balancer
from training.cli import app
from training.config import ConfigError, RunConfig, load_config
from training.logit_adjustment import Strengths
from training.model import DeepLab, DeepLabConfig, Network, build_network
from training.model.deeplab import dilated_encoder
from training.model.pretrained import WeightsError, initialise
from training.objective import Objective
from training.optim import build_optimizer, parameter_groups
from training.trainer import LAST
from training.training_step import Held, Step, checkpoint_activations

ALL = {
    "semseg": "nyu13",
    "depth": None,
    "normals": None,
    "saliency": None,
    "parsing": "fashion",
    "edges": None,
}
THREE = {"semseg": "nyu13", "depth": None, "normals": None}


def network(tasks: dict[str, str | None] = THREE, encoder: str = "test_resnet") -> DeepLab:
    torch.manual_seed(0)
    return DeepLab(DeepLabConfig(tasks=tasks, encoder=encoder))


def ial_run(*overrides: str) -> RunConfig:
    return load_config("ial_nyuv2", ["root=unused", *overrides])


def labelled_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(2, 3, 40, 56, generator=generator) * 255,
        "semseg": torch.randint(0, 13, (2, 40, 56), generator=generator),
        "depth": torch.rand(2, 1, 40, 56, generator=generator) + 1,
        "normals": nn.functional.normalize(torch.randn(2, 3, 40, 56, generator=generator), dim=1),
    }


def backward(net: Network, method: str, options: dict[str, object]) -> tuple[Step, Engine]:
    """One training step's gradients, with the same dropout each time."""
    engine = Engine(build_balancer(method, [task.name for task in net.tasks], options))
    step = Step(net.train(), Objective(net.tasks, ial_run().loss), engine)
    torch.manual_seed(1)
    step(Held(labelled_batch()), 0, 0, 1.0).total.backward()
    return step, engine


def taken_gradients(net: Network) -> dict[str, Tensor]:
    grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad(set_to_none=True)
    return grads


def test_every_task_is_predicted_at_an_odd_size() -> None:
    net = network(ALL)
    predictions = net(torch.randint(0, 256, (2, 3, 33, 49), dtype=torch.uint8))
    for task in net.tasks:
        maps = predictions.final[task.name]
        assert (maps.shape, maps.dtype) == ((2, task.channels, 5, 7), torch.float32)
    assert list(predictions.final) == list(ALL)
    assert (predictions.intermediate, predictions.cosine) == ({}, None)


def test_the_encoder_is_the_strided_one_computed_at_every_position() -> None:
    dilated = dilated_encoder("resnet18").eval()
    strided = timm.create_model("resnet18", num_classes=0, global_pool="").eval()
    strided.load_state_dict(dilated.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        dense, sparse = dilated(images), strided(images)
    assert dense.shape == (1, 512, 8, 12)
    torch.testing.assert_close(dense[..., ::4, ::4], sparse, rtol=1e-4, atol=1e-5)


def test_one_task_is_torchvisions_deeplab() -> None:
    net = network({"semseg": "nyu13"}, "resnet50.tv_in1k").eval()
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=13).eval()
    names = {"encoder.": "backbone.", "branches.semseg.aspp.": "classifier.0."}
    names |= {f"branches.semseg.head.{index}.": f"classifier.{index + 1}." for index in range(4)}
    ours = {
        theirs_ + name.removeprefix(mine): value
        for name, value in net.state_dict().items()
        for mine, theirs_ in names.items()
        if name.startswith(mine)
    }
    assert len(ours) == len(net.state_dict())
    theirs.load_state_dict(ours)
    images = torch.rand(1, 3, 33, 49) * 255
    with torch.no_grad():
        resized = nn.functional.interpolate(net(images).final["semseg"], (33, 49), mode="bilinear")
        torch.testing.assert_close(resized, theirs(net.normalise(images))["out"])


def test_the_shipped_network_has_its_size() -> None:
    with torch.device("meta"):
        net = build_network(ial_run().model)
        resnet50 = timm.create_model("resnet50", num_classes=0)
        heads = [DeepLabHead(2048, channels) for channels in (13, 1, 3)]
    pyramid = (1 + 3 * 9 + 1) * 2048 * 256 + 5 * 256 * 256 + 6 * 2 * 256
    head = 9 * 256 * 256 + 2 * 256
    sizes = [sum(p.numel() for p in module.parameters()) for module in (resnet50, *heads)]
    assert sizes[1:] == [pyramid + head + 257 * channels for channels in (13, 1, 3)]
    assert sum(p.numel() for p in net.parameters()) == sum(sizes) == 71_888_721


@pytest.mark.parametrize(("method", "options"), [("ial", {"primary": "depth", "map": "exp"}), ("pcgrad", {})])
def test_a_step_changes_encoder_and_heads(method: str, options: dict[str, object]) -> None:
    net = network()
    for module in net.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm starts residual blocks as identities, at 0
    before = {name: value.clone() for name, value in net.named_parameters()}
    _, engine = backward(net, method, options)
    build_optimizer(net, engine.balancer, ial_run().optim).step()
    same = [name for name, value in net.named_parameters() if torch.equal(value, before[name])]
    assert same == []


def test_the_encoder_is_what_is_shared() -> None:
    """At sigma 1 relu(1 - sigma) = 0: the encoder trains on the primary task, each head on half its loss."""
    net = network()
    backward(net, "ial", {"primary": "depth", "map": "relu"})
    found = taken_gradients(net)
    backward(net, "manual", {"weights": [0, 1, 0]})
    primary = taken_gradients(net)
    backward(net, "manual", {"weights": [0.5] * 3})
    half = taken_gradients(net)
    for name, value in found.items():
        expected = primary[name] if name.startswith("encoder.") else half[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(found[name], half[name]) for name in found if name.startswith("encoder."))


def test_the_encoder_has_its_own_rate() -> None:
    net = network()
    groups = parameter_groups(net, ial_run("optim.encoder_lr=1e-5").optim)
    slow = {id(p) for group in groups if group["lr"] == 1e-5 for p in group["params"]}
    assert slow == {id(p) for p in net.encoder.parameters()}


def test_recomputed_activations_give_equal_gradients() -> None:
    net = network()
    backward(net, "pcgrad", {})
    kept = taken_gradients(net)
    checkpoint_activations(net)
    backward(net, "pcgrad", {})
    for name, value in taken_gradients(net).items():
        torch.testing.assert_close(value, kept[name], rtol=1e-4, atol=1e-6, msg=name)


def test_checkpoints_hold_it_and_take_class_weights_back(tmp_path: Path) -> None:
    weights = [2.0, *[1.0] * 12]
    run = ial_run("model.encoder=test_resnet", f"loss.class_weights.semseg={weights}")
    net = build_network(run.model).eval()
    images = torch.rand(1, 3, 40, 56) * 255
    path, slim = tmp_path / "run.pt", tmp_path / "slim.pt"
    checkpoint.save(path, {"config": run.model_dump(mode="json"), "model": net.state_dict()})
    checkpoint.strip(path, slim, undo=Strengths(1.0))
    again, config = checkpoint.load_network(path)
    assert isinstance(again, DeepLab)
    assert config == run
    start = network()
    assert initialise(start, str(path)) == len(net.state_dict())
    with torch.no_grad():
        before = net(images).final
        for other in (again, start.eval()):
            assert all(torch.equal(maps, before[name]) for name, maps in other(images).final.items())
        after = checkpoint.load_network(slim)[0](images).final
    shift = torch.tensor([-0.693, *[0.0] * 12])[:, None, None].expand(13, 5, 7)
    torch.testing.assert_close((after["semseg"] - before["semseg"])[0], shift, rtol=0, atol=5e-3)
    torch.testing.assert_close(after["depth"], before["depth"], rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.cfm=true"], "model: .*cfm: parts of MT-CP, which a network of kind deeplab does not have"),
        (["model.srm=false"], "srm: parts of MT-CP"),
        (["model.decoder.window=4", "model.coherence.kv_stride=4"], "decoder, coherence: parts of MT-CP"),
        (["model.kind=unet"], r"model: kind must be mtcp \(the default\) or deeplab"),
        (["model.tasks.semseg=nyu14"], "model.tasks|needs a label space"),
        (["model.pixel_mean=[0, 0]"], "model.pixel_mean.2: Field required"),
        (["data.batch_size=1"], "at least 2 images a process"),
        (["devices=8"], "at least 2 images a process"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ial_run(*overrides)


def test_encoders_that_cannot_be_dilated_are_named() -> None:
    with pytest.raises(ValueError, match="unknown encoder 'swin_small'"):
        network(encoder="swin_small")
    with pytest.raises(ValueError, match="'vit_tiny_patch16_224' cannot be dilated"):
        network(encoder="vit_tiny_patch16_224")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that cannot be reached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_imagenet_weights_come_from_the_hubs_cache(hub: Path) -> None:
    published = timm.create_model("test_resnet", pretrained=False)
    repository = hub / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    safetensors.torch.save_file(published.state_dict(), snapshot / "model.safetensors")
    net = network(encoder="test_resnet.r160_in1k")
    count = initialise(net, "imagenet")
    ours, theirs = net.encoder.state_dict(), published.state_dict()
    assert count == sum(not name.endswith("num_batches_tracked") for name in ours)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("imagenet", r"timm/test_resnet\.r160_in1k is neither in the cache .* set init=null"),
        ("lite0_imagenet", "tf_efficientnet_lite0 only"),
        ("facebook/mask2former-swin-small-ade-semantic", "fits kind mtcp only"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_starting_weights_that_cannot_be_had_are_named(init: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        initialise(network(), init)


def test_imagenet_weights_are_timms() -> None:
    with torch.device("meta"):
        net = build_network(load_config("nyud_swin_small", ["root=x"]).model)
    with pytest.raises(WeightsError, match="encoders of timm only"):
        initialise(net, "imagenet")


def test_the_shipped_config_trains_evaluates_and_slims(tmp_path: Path) -> None:
    root, run = tmp_path / "data", tmp_path / "run"
    names = ["a", "b", "c", "d"]
    for name in names:
        write_record(root, name, {key: all_maps()[key] for key in ("semseg", "depth", "normals")}, photo())
    write_split(root, names)
    write_split(root, names[:2], "val")
    settings = ["init=null", "epochs=1", "data.height=32", "data.width=48", "data.batch_size=2"]
    settings += ["data.workers=0", "model.encoder=test_resnet", "tensorboard=false", f"root={root}"]
    for arguments in (
        ["train", "ial_nyuv2", *settings, "--run", str(run)],
        ["strip", str(run / LAST), "-o", str(tmp_path / "slim.pt")],
        ["evaluate", str(tmp_path / "slim.pt")],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    assert all(figure in done.output for figure in ("mIoU", "rmse/mtcp", "mErr/mtcp"))
    assert isinstance(checkpoint.load_network(run / LAST)[0], DeepLab)
