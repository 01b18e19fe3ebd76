"""All tasks at once against one task after another, and weights of the old layout."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.model.reference import LoopedBranches
from tests.training.tiny import tiny_model, tiny_run
from training import checkpoint
from training.model import MTCP, ModelConfig, Predictions
from training.model.exporting import as_exported
from training.model.layouts import stack_branches
from training.model.pretrained import WeightsError, initialise

PAPER: dict[str, object] = {
    "tasks": {"semseg": "nyu13", "depth": None, "normals": None},
    "coherence": {},
    "depth_activation": "none",
    "decoder": {"channels": 16, "window": 7},
}
CONFIGS: dict[str, dict[str, object]] = {
    "five tasks": {},
    "paper": PAPER,
    "one task": {"tasks": {"depth": None}, "cfm": False},
    "no cfm": PAPER | {"cfm": False},
    "no srm": PAPER | {"srm": False},
    "neither": PAPER | {"cfm": False, "srm": False, "predict_from_fused": False},
    "every flag": {
        "decoder": {"channels": 32, "window": 3, "fusion": "dynamic", "depths": (2, 1, 3), "heads": 4},
        "coherence": {"kv_stride": 2, "main_relu": False, "mixed_channels": 24, "affinity_scale": "rsqrt"},
        "predict_from_fused": False,
        "normals_facing": True,
    },
}


def pair(changes: dict[str, object], dtype: torch.dtype = torch.float64) -> tuple[LoopedBranches, MTCP]:
    """A loop over tasks with random weights and norms, and the network with the same weights."""
    torch.manual_seed(0)
    config = tiny_model(**changes)
    network = MTCP(config)
    loop = LoopedBranches(config, network.backbone.channels)
    for module in loop.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        for name, parameter in module.named_parameters(recurse=False):
            if name in ("weights", "relative_position_bias_table"):
                nn.init.normal_(parameter)
    network.load_state_dict(network.backbone.state_dict(prefix="backbone.") | loop.state_dict())
    return loop.to(dtype).train(), network.to(dtype).train()


def outputs(predictions: Predictions) -> dict[str, Tensor]:
    found = dict(predictions.final)
    for name, levels in predictions.intermediate.items():
        found |= {f"{name} {index}": level for index, level in enumerate(levels)}
    return found | ({} if predictions.cosine is None else {"cosine": predictions.cosine})


def gradients(module: nn.Module, predictions: Predictions, shared: Tensor) -> dict[str, Tensor]:
    total = torch.stack([x.square().mean() for x in outputs(predictions).values()]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert shared.grad is not None
    grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return grads | {"shared": shared.grad}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_tasks_at_once_equal_one_task_after_another(changes: dict[str, object]) -> None:
    loop, network = pair(changes)
    shared = torch.randn(2, network.backbone.channels, 15, 22, dtype=torch.float64)
    leaves = [shared.clone().requires_grad_() for _ in range(2)]
    plain, joint = loop(leaves[0]), network.decode(leaves[1])
    expected, found = outputs(plain), outputs(joint)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)
    slow, fast = gradients(loop, plain, leaves[0]), gradients(network, joint, leaves[1])
    stack_branches(network, slow)
    assert slow.keys() == fast.keys()
    for name, value in slow.items():
        torch.testing.assert_close(fast[name].view(value.shape), value, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_tasks_at_once_equal_the_loop_in_single_precision(training: bool) -> None:
    loop, network = pair({}, torch.float32)
    loop.train(training)
    network.train(training)
    shared = torch.randn(2, network.backbone.channels, 15, 22)
    with torch.no_grad():
        expected, found = loop(shared).final, network.decode(shared).final
    for name, value in expected.items():
        assert (found[name] - value).square().mean().sqrt() < 1e-6, name


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(15, 22), (28, 56)], ids=["padded", "whole"])
def test_they_are_the_same_as_an_exported_graph_has_them(
    changes: dict[str, object], size: tuple[int, int]
) -> None:
    loop, network = pair(changes)
    shared = torch.randn(2, network.backbone.channels, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = loop.eval()(shared).final
        with as_exported():
            found = network.eval().decode(shared).final
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_what_all_tasks_say_is_one_tensor() -> None:
    _, network = pair({})
    predictions = network.decode(torch.randn(2, network.backbone.channels, 12, 16, dtype=torch.float64))
    assert predictions.joint is not None
    assert torch.equal(torch.cat(list(predictions.final.values()), 1), predictions.joint)
    levels = zip(*predictions.intermediate.values(), strict=True)
    for level, joint in zip(levels, predictions.joint_intermediate, strict=True):
        assert torch.equal(torch.cat(level, 1), joint)


def test_idle_halves_of_depth_heads_stay_idle() -> None:
    config = tiny_model()
    network = MTCP(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        predictions = network.decode(torch.randn(2, network.backbone.channels, 12, 16))
        optimizer.zero_grad()
        torch.stack([x.square().mean() for x in outputs(predictions).values()]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    width = config.decoder.channels
    heads = network.branches.head
    hidden = [tensor for name, tensor in heads.hidden.named_parameters() if tensor.shape[0] == 5 * width]
    assert len(hidden) == 3
    for tensor in hidden:
        task = tensor[width : 2 * width]
        assert not task[width // 2 :].any()
        assert task[: width // 2].any()
    assert not heads.layers()[0][1][:, width // 2 :].any()


def old_checkpoint(path: Path, **changes: object) -> tuple[LoopedBranches, MTCP]:
    """A checkpoint with a module a task, and the network that should come out of it."""
    loop, network = pair(changes, torch.float32)
    config = tiny_run().model_copy(update={"model": network.config})
    weights = network.backbone.state_dict(prefix="backbone.") | loop.state_dict()
    checkpoint.save(path, {"config": config.model_dump(mode="json"), "model": weights})
    return loop, network


def test_checkpoints_of_the_old_layout_load_and_are_starting_points(tmp_path: Path) -> None:
    loop, network = old_checkpoint(tmp_path / "old.pt")
    loaded, _ = checkpoint.load_network(tmp_path / "old.pt")
    start = MTCP(network.config)
    initialise(start, str(tmp_path / "old.pt"))
    shared = torch.randn(1, network.backbone.channels, 12, 16)
    with torch.no_grad():
        expected = loop.eval()(shared).final
        for found in (loaded, start.eval()):
            assert isinstance(found, MTCP)
            final = found.decode(shared).final
            for name, value in expected.items():
                torch.testing.assert_close(final[name], value, rtol=1e-5, atol=1e-5)


def test_weights_of_other_tasks_are_refused(tmp_path: Path) -> None:
    _, network = old_checkpoint(tmp_path / "old.pt", tasks={"depth": None, "normals": None})
    old = LoopedBranches(network.config, network.backbone.channels).state_dict()
    five = MTCP(tiny_model())
    with pytest.raises(
        RuntimeError, match=r"those of the tasks depth, normals; the network has semseg, depth"
    ):
        five.load_state_dict(network.backbone.state_dict(prefix="backbone.") | old)
    with pytest.raises(WeightsError, match="tasks depth, normals; this network has semseg, depth"):
        initialise(five, str(tmp_path / "old.pt"))
    swapped = ModelConfig.model_validate(
        network.config.model_dump() | {"tasks": {"normals": None, "depth": None}}
    )
    with pytest.raises(WeightsError, match="tasks depth, normals; this network has normals, depth"):
        initialise(MTCP(swapped), str(tmp_path / "old.pt"))
