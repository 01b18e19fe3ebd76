import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Mask2FormerConfig, Mask2FormerModel

from tests.training.tiny import tiny_model
from training import checkpoint
from training.config import load_config, override
from training.label_spaces import LABEL_SPACES
from training.model import MTCP, BackboneConfig, ModelConfig, build_network
from training.model.pretrained import WeightsError, backbone_names, initialise
from training.weights_file import write_weights


def network(encoder: str = "tf_efficientnet_lite0", **changes: object) -> MTCP:
    backbone = tiny_model().backbone.model_copy(update={"encoder": encoder, **changes})
    return MTCP(tiny_model(backbone=backbone.model_dump()))


@pytest.mark.parametrize(
    ("version", "classifier_features", "count"), [(0, False, 240), (0, True, 245), (2, True, 320)]
)
def test_imagenet_weights_reach_the_encoder(version: int, classifier_features: bool, count: int) -> None:
    torch.manual_seed(0)
    net = network(f"tf_efficientnet_lite{version}", classifier_features=classifier_features)
    assert initialise(net, f"lite{version}_imagenet") == count
    net.eval()
    encoder = net.backbone.encoder
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, 64, 64))
    # activations of a trained batch-normalised network on unit-variance noise stay of order one
    assert all(0.05 < feature.std() < 20 for feature in features)
    stem = encoder.encoder.bn1.running_var
    assert not torch.allclose(stem, torch.ones_like(stem))


def test_imagenet_weights_fit_their_encoder_only() -> None:
    with pytest.raises(WeightsError, match="tf_efficientnet_lite0 only"):
        initialise(network("resnet18"), "lite0_imagenet")
    with pytest.raises(WeightsError, match=r"tf_efficientnet_lite2 only; .* differs"):
        initialise(network("tf_efficientnet_lite0"), "lite2_imagenet")


def test_published_mask2former_weights_have_a_place_for_every_tensor() -> None:
    paper = load_config("nyud_swin_small", ["root=x"]).model
    assert isinstance(paper, ModelConfig)
    with torch.device("meta"):
        ours = MTCP(paper).backbone.state_dict()
        theirs = backbone_names(Mask2FormerModel(Mask2FormerConfig()).state_dict())
    assert paper.backbone == BackboneConfig()
    assert {name: value.shape for name, value in ours.items()} == {name: theirs[name].shape for name in ours}


def test_a_checkpoint_is_a_starting_point(tmp_path: Path) -> None:
    config = load_config("scenes")
    source = build_network(config.model)
    checkpoint.save(
        tmp_path / "a.pt", {"config": config.model_dump(mode="json"), "model": source.state_dict()}
    )
    target = build_network(config.model)
    assert initialise(target, str(tmp_path / "a.pt")) == len(source.state_dict())
    copied = target.state_dict()
    assert all(torch.equal(copied[name], value) for name, value in source.state_dict().items())
    other = MTCP(tiny_model(decoder={"channels": 16, "window": 4, "fusion": "dynamic"}))
    with pytest.raises(WeightsError, match="lacks"):
        initialise(other, str(tmp_path / "a.pt"))


def test_shipped_weights_start_a_run_that_knows_other_classes(tmp_path: Path) -> None:
    """Rows of the last layers go by class name, everything else is copied."""
    space = tmp_path / "garden.yaml"
    space.write_text("labels: [ground, dog, person]")
    config = load_config("scenes")
    source = build_network(config.model)
    assert isinstance(source, MTCP)
    checkpoint.save(
        tmp_path / "a.pt", {"config": config.model_dump(mode="json"), "model": source.state_dict()}
    )
    checkpoint.strip(tmp_path / "a.pt", tmp_path / "model.safetensors")
    target = MTCP(tiny_model(tasks=config.model.tasks | {"semseg": str(space)}))
    before = target.branches.head.layers()[0][0].clone()
    initialise(target, str(tmp_path / "model.safetensors"))
    halves = {name: value.half().float() for name, value in source.state_dict().items()}
    copied = target.state_dict()
    same = [name for name, value in halves.items() if copied[name].shape == value.shape]
    assert len(same) > len(halves) - 10
    assert all(torch.equal(copied[name].float(), halves[name]) for name in same)
    labels = LABEL_SPACES["voc"].labels
    mine, theirs = target.branches.head.layers()[0], source.branches.head.layers()[0]
    assert torch.equal(mine[0][1:], theirs[0][[labels.index("dog"), labels.index("person")]].half().float())
    assert torch.equal(mine[0][0], before[0])
    assert all(torch.equal(a, b.half().float()) for a, b in zip(mine[1:], theirs[1:], strict=True))


def test_safetensors_are_weights_with_their_config(tmp_path: Path) -> None:
    config = load_config("scenes")
    source = build_network(config.model)
    checkpoint.save(
        tmp_path / "a.pt", {"config": config.model_dump(mode="json"), "model": source.state_dict()}
    )
    path = tmp_path / "model.safetensors"
    checkpoint.strip(tmp_path / "a.pt", path)
    assert path.stat().st_mode == (tmp_path / "a.pt").stat().st_mode
    with safe_open(path, "np") as file:  # somebody else's reader
        assert json.loads(file.metadata()["config"])["name"] == config.name
        assert set(file.keys()) == set(source.state_dict())
    network, read = checkpoint.load_network(path)
    assert read == config
    placed = override(config, ["data.val=[{kind: folder, root: /home/me/secret/photos, split: val}]"])
    checkpoint.save(
        tmp_path / "b.pt", {"config": placed.model_dump(mode="json"), "model": source.state_dict()}
    )
    checkpoint.strip(tmp_path / "b.pt", path)
    assert b"secret" not in path.read_bytes()
    assert checkpoint.load_network(path)[1].data.val[0].root == "photos"
    for name, value in network.state_dict().items():
        assert torch.equal(value, source.state_dict()[name].to(torch.float16).to(value.dtype)), name


def test_weights_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    net = MTCP(tiny_model())
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors is not a readable safetensors file"):
        initialise(net, str(path))
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no configuration in its metadata: it is of another project"):
        initialise(net, str(path))
    other = load_config("scenes", ["model.decoder.channels=24"])
    write_weights(path, build_network(other.model).state_dict(), other.model_dump(mode="json"), 1)
    with pytest.raises(WeightsError, match=r"of another architecture: branches\..* has \[.*this network \["):
        initialise(net, str(path))
