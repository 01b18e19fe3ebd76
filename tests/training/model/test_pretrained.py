from pathlib import Path

import pytest
import torch
from transformers import Mask2FormerConfig, Mask2FormerModel

from tests.training.tiny import tiny_model
from training import checkpoint
from training.config import load_config
from training.model import MTCP, BackboneConfig, ModelConfig, build_network
from training.model.pretrained import WeightsError, backbone_names, initialise


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
