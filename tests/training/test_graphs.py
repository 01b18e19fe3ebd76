"""CUDA graphs: who may have them, and what they are made of, by a stand-in for the capture on a CPU."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.training.quiet_device import QuietDevice
from tests.training.tiny import tiny_run
from training import label_loss
from training.balancing import build_balancer
from training.data import Batch
from training.graphs import GraphedStep, capture_all, refusal
from training.model import Predictions
from training.objective import Objective
from training.trainer import Trainer
from training.training_step import Held

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("overrides", "ranks", "why"),
    [
        ([], 1, None),
        ([], 2, "DDP"),
        (["~balancer.options", "balancer.name=imtl"], 1, "imtl takes the gradient of each task"),
        (["~balancer.options", "balancer.name=auto_lambda"], 1, "auto_lambda"),
        (["optim.accumulate=2"], 1, "accumulate"),
        (["activation_checkpointing=true"], 1, "activation_checkpointing"),
        (["compile=inductor"], 1, "compile"),
    ],
)
def test_runs_that_cannot_be_captured_are_told_why(overrides: list[str], ranks: int, why: str | None) -> None:
    config = tiny_run(*overrides)
    balancer = build_balancer(config.balancer.name, 5, config.balancer.options)
    found = refusal(config, CUDA, ranks, balancer)
    assert (found is None) == (why is None)
    assert why is None or why in (found or "")


def test_graphs_asked_for_on_a_cpu_are_a_warning_and_the_plain_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(tiny_run("cuda_graphs=true", "epochs=1", "data.samples_per_epoch=2"), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert trainer.train()
    assert "cuda_graphs: not used, the device is cpu" in caplog.text


class Replay(torch.autograd.Function):
    """A part with static inputs, outputs and gradients, as `torch.cuda.make_graphed_callables` makes it."""

    @staticmethod
    def forward(ctx: Any, graph: "Graph", *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.graph = graph
        with torch.no_grad():
            for static, given in zip(graph.sample, inputs, strict=False):
                static.copy_(given)
        with torch.enable_grad():
            graph.outputs = graph.run(*graph.sample)
        return tuple(output.detach() for output in graph.outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        graph: Graph = ctx.graph
        pairs = [(o, g) for o, g in zip(graph.outputs, grads, strict=True) if o.requires_grad]
        surface = [*graph.sample, *graph.parameters]
        wanted = [value for value in surface if value.requires_grad]
        found = iter(
            torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
        )
        return (None, *(next(found) if value.requires_grad else None for value in surface))


class Graph:
    """One captured part."""

    def __init__(self, module: nn.Module, sample: Sequence[Tensor]) -> None:
        self.run: Callable[..., tuple[Tensor, ...]] = module.forward
        self.sample, self.parameters = sample, list(module.parameters())
        self.outputs: tuple[Tensor, ...] = ()


def captured(
    modules: tuple[nn.Module, ...], samples: tuple[tuple[Tensor, ...], ...], **options: bool
) -> None:
    """What the real one asks of its arguments, three warm-up runs with it, then static replays."""
    assert options == {"allow_unused_input": True}
    assert not (torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled())
    for module, sample in zip(modules, samples, strict=True):
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert all(isinstance(value, Tensor) for value in sample)
        for _ in range(3):
            outputs = module(*sample)
            assert isinstance(outputs, tuple)
            assert all(isinstance(value, Tensor) for value in outputs)
        graph = Graph(module, sample)

        def replay(*inputs: Tensor, graph: Graph = graph) -> Any:
            for given, static in zip(inputs, graph.sample, strict=True):
                assert (given.shape, given.dtype) == (static.shape, static.dtype)
                assert given.requires_grad == static.requires_grad
            return Replay.apply(graph, *inputs, *graph.parameters)

        module.forward = replay


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", captured)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def made(tmp_path: Path, graphs_too: bool, *overrides: str) -> Trainer:
    trainer = Trainer(tiny_run("model.backbone.drop_path=0.2", "optim.ema=0.9", *overrides), tmp_path)
    trainer.network.train()
    if graphs_too:
        step = GraphedStep(trainer.network, trainer.objective, lambda: torch.autocast("cpu", enabled=False))
        assert capture_all(step, trainer.feed.examples())
        trainer.forward_step.graphs = step
    return trainer


@pytest.mark.usefixtures("_no_gpu")
def test_replayed_steps_are_the_plain_steps(tmp_path: Path) -> None:
    """Weights, running statistics and records after two steps, the second of which replays in the memory."""
    plain, graphed = (made(tmp_path, graphs_too) for graphs_too in (False, True))
    batches = list(plain.feed.batches(0, 0))[:2]
    for trainer in (plain, graphed):
        for batch in batches:
            trainer._train_step(batch)
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(graphed.network.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert torch.equal(plain._tally._sums[1], graphed._tally._sums[1])
    torch.testing.assert_close(plain._tally._sums, graphed._tally._sums, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_no_gpu")
def test_a_batch_of_another_shape_runs_the_plain_way(tmp_path: Path) -> None:
    trainer = made(tmp_path, True)
    batch = next(trainer.feed.batches(0, 0))
    one = {name: value[:1] for name, value in batch.items()}
    assert trainer.forward_step.graphs is not None
    assert trainer.forward_step.graphs.run(one) is None
    assert trainer._model(Held(one), 0, 0, 1.0).finite


@pytest.mark.usefixtures("_no_gpu")
def test_a_step_that_cannot_be_captured_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", failing)
    monkeypatch.setattr("training.parts.refusal", lambda *_: None)
    trainer = Trainer(tiny_run("cuda_graphs=true", "epochs=1", "data.samples_per_epoch=2"), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert trainer.train()
    assert "cannot be captured and runs the plain way: operation not permitted" in caplog.text


def test_the_objective_copies_nothing_to_a_gpu() -> None:
    """On tensors that claim to be on one: a number in ``torch.where`` would be a copy, and end a capture."""
    config = tiny_run("loss.scale={depth: 2.0}", "loss.lambda_geometry=0.5")
    objective = Objective(config.tasks, config.loss)
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch: Batch = {"image": torch.empty(2, 3, 32, 48, dtype=torch.uint8, device=CUDA)}
        final, coarse = {}, {}
        for task in config.tasks:
            final[task.name] = torch.empty(2, task.channels, 8, 12, device=CUDA, requires_grad=True)
            coarse[task.name] = [torch.empty(2, task.channels, 4, 6, device=CUDA, requires_grad=True)] * 2
            shape = (2, 32, 48) if task.kind == "labels" else (2, 3 if task.kind == "normals" else 1, 32, 48)
            kind = torch.uint8 if task.kind == "labels" else torch.float16
            batch[task.name] = torch.empty(shape, dtype=kind, device=CUDA)
        batch["focal"] = torch.empty(2, 2, device=CUDA)
        batch["disparity"] = torch.empty(2, 1, 32, 48, dtype=torch.float16, device=CUDA)
        predictions = Predictions(final=final, intermediate=coarse)
        try:
            objective(predictions, batch)  # tables of label spaces are copied once
            with QuietDevice():
                terms = objective(predictions, batch)
        finally:
            label_loss._log_members.cache_clear()
        assert terms.losses[0].device.type == "cuda"
