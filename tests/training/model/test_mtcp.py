import pytest
import torch

from tests.training.tiny import tiny_model
from training.config import load_config
from training.model import MTCP, ModelConfig

FIVE = {"semseg": "voc", "depth": None, "normals": None, "saliency": None, "parsing": "fashion"}
ABLATIONS = {
    "full": (True, True),
    "no cfm": (False, True),
    "no srm": (True, False),
    "neither": (False, False),
}


def network(**changes: object) -> MTCP:
    torch.manual_seed(0)
    return MTCP(tiny_model(**changes))


def count(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_the_papers_network_has_its_size() -> None:
    config = load_config("nyud_swin_small", ["root=nowhere"])
    assert isinstance(config.model, ModelConfig)
    with torch.device("meta"):
        paper = MTCP(config.model)
    assert count(paper) == pytest.approx(151, rel=0.02)
    assert count(paper.backbone) == pytest.approx(68.8, rel=0.01)
    sizes = {name: count(child) / 3 for name, child in paper.branches.named_children()}
    assert sizes["decoder"] == pytest.approx(22.3, rel=0.01)
    assert sizes["dfpn"] == pytest.approx(1.05, rel=0.01)
    assert sizes["srms"] == pytest.approx(3.37, rel=0.01)
    assert paper.branches.cfm is not None
    cosine_projection = count(paper.branches.cfm.project) / 3
    assert sizes["cfm"] - cosine_projection == pytest.approx(0.48, rel=0.01)


@pytest.mark.parametrize("tasks", [{"depth": None}, {"semseg": "nyu40", "normals": None}, FIVE], ids=len)
@pytest.mark.parametrize(("cfm", "srm"), ABLATIONS.values(), ids=ABLATIONS)
def test_every_set_of_tasks_and_ablation_predicts_at_stride_4(
    tasks: dict[str, str | None], cfm: bool, srm: bool
) -> None:
    if cfm and len(tasks) == 1:
        with pytest.raises(ValueError, match="cfm: false"):
            tiny_model(tasks=tasks, cfm=cfm, srm=srm)
        return
    net = network(tasks=tasks, cfm=cfm, srm=srm)
    predictions = net(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    for task in net.tasks:
        assert predictions.final[task.name].shape == (2, task.channels, 16, 24)
        assert len(predictions.intermediate[task.name]) == (3 if srm else 0)
    assert (predictions.cosine is not None) == cfm


def with_context(channels: int) -> MTCP:
    backbone = tiny_model().backbone.model_dump() | {"context_channels": channels}
    return network(backbone=backbone)


def test_context_stands_beside_the_representation_of_the_paper() -> None:
    plain, wide = network().eval(), with_context(32).eval()
    result = wide.load_state_dict(
        {k: v for k, v in plain.state_dict().items() if not k.endswith("decoder.project.weight")},
        strict=False,
    )
    assert result.unexpected_keys == []
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    deepest = wide.backbone.encoder(wide.backbone.normalise(images))[-1]
    assert wide.backbone.context is not None
    shared, context = wide.encode(images).tensor_split([plain.backbone.channels], dim=1)
    torch.testing.assert_close(shared, plain.encode(images))
    torch.testing.assert_close(context, wide.backbone.context(deepest, (16, 24)))
    assert wide.backbone.channels == plain.backbone.channels + 32


@pytest.mark.parametrize("context", [0, 32])
def test_training_reaches_every_parameter(context: int) -> None:
    net = with_context(context)
    predictions = net(torch.rand(2, 3, 64, 96) * 255)
    maps = [*predictions.final.values(), *(m for maps in predictions.intermediate.values() for m in maps)]
    assert predictions.cosine is not None
    (sum(m.square().mean() for m in maps) + predictions.cosine).backward()
    untouched = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert untouched == set()


def test_evaluation_runs_no_auxiliary_head() -> None:
    net = network().eval()
    with torch.no_grad():
        predictions = net(torch.rand(1, 3, 64, 96) * 255)
    assert predictions.intermediate == {}
    assert predictions.cosine is None


@pytest.mark.parametrize("size", [(60, 76), (33, 49), (96, 64)])
def test_odd_sizes_are_padded_inside(size: tuple[int, int]) -> None:
    net = network(tasks={"depth": None, "normals": None}).eval()
    with torch.no_grad():
        final = net(torch.rand(1, 3, *size) * 255).final
    stride_4 = tuple(-(-side // 4) for side in size)
    assert all(tuple(x.shape[-2:]) == stride_4 and x.isfinite().all() for x in final.values())


def test_images_of_a_batch_do_not_see_each_other() -> None:
    net = network().eval()
    images = torch.rand(3, 3, 64, 96) * 255
    with torch.no_grad():
        together = net(images).final
        alone = net(images[1:2]).final
    for name, maps in together.items():
        torch.testing.assert_close(maps[1:2], alone[name], rtol=1e-4, atol=1e-4)


def test_coherence_carries_one_task_into_another() -> None:
    """By gradients: in an untrained network the change of the map is less than single precision tells."""
    images = torch.rand(1, 3, 64, 96) * 255
    for cfm in (True, False):
        net = network(cfm=cfm, coherence={}).eval()
        depth = net(images).final["depth"]
        lateral = net.branches.dfpn.get_parameter("lateral.0.weight")  # third of five tasks: normals
        (gradient,) = torch.autograd.grad(depth.square().sum(), lateral)
        by_task = gradient.reshape(5, -1)
        assert by_task[1].any()
        assert bool(by_task[2].any()) == cfm


def test_frozen_stages_and_norms_stay_as_they_are() -> None:
    backbone = tiny_model().backbone.model_copy(update={"freeze_stages": 2, "freeze_norm": True})
    net = network(backbone=backbone.model_dump()).train()
    encoder = net.backbone.encoder.encoder
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert {"conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.6.0.bn1.weight"} <= frozen
    assert "blocks.6.0.conv_pw.weight" not in frozen
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    net(torch.rand(2, 3, 64, 96) * 255)
    after = encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_unknown_encoders_tasks_and_flags_are_named() -> None:
    backbone = tiny_model().backbone.model_dump()
    with pytest.raises(ValueError, match="unknown encoder 'resnet_of_dreams'"):
        network(backbone=backbone | {"encoder": "resnet_of_dreams"})
    with pytest.raises(ValueError, match="strides"):
        network(backbone=backbone | {"encoder": "vit_tiny_patch16_224"})
    with pytest.raises(ValueError, match="unknown task 'smell'"):
        ModelConfig.model_validate({"tasks": {"smell": None}})
    with pytest.raises(ValueError, match="name at least one task"):
        ModelConfig.model_validate({"tasks": {}})
