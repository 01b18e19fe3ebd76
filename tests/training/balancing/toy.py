"""A network with a shared representation, three tasks, intermediate losses and a term that couples tasks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.balancing import Engine, MetaBalancer, StepResult, TaskLosses

TASKS = ("semseg", "depth", "normals")


class Toy(nn.Module):
    """Inputs [B, 4], targets [B, 3, 2]; all losses are means over samples."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(6, 2) for _ in TASKS)
        self.inner = nn.ModuleList(nn.Linear(6, 2) for _ in TASKS)

    def terms(self, z: Tensor, targets: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Losses, auxiliary losses and coherence loss."""
        final = [head(z) for head in self.heads]
        inner = [head(z) for head in self.inner]
        losses = [
            scale * (x - y).square().mean()
            for scale, x, y in zip((1, 5, 0.3), final, targets.unbind(1), strict=True)
        ]
        folded = [0.2 * (x - y).square().mean() for x, y in zip(inner, targets.unbind(1), strict=True)]
        return losses, folded, 0.1 * (final[0] * final[1]).mean()

    def forward(self, inputs: Tensor, targets: Tensor, engine: Engine, step: int = 0) -> StepResult:
        shared = self.encoder(inputs)
        leaf = engine.leaf(shared)
        return engine.total(task_losses(*self.terms(leaf, targets)), shared, leaf, epoch=0, step=step)


def task_losses(
    losses: Sequence[Tensor] | Tensor, aux_losses: Sequence[Tensor] | Tensor, coherence_loss: Tensor
) -> TaskLosses:
    """The terms of a batch in which every task has a label."""
    return TaskLosses(
        list(losses), list(aux_losses), coherence_loss, torch.ones(len(losses), dtype=torch.bool)
    )


def toy() -> Toy:
    torch.manual_seed(1)
    return Toy()


def batch(samples: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=generator)
    return inputs, torch.randn(samples, len(TASKS), 2, generator=generator)


def look_ahead(
    balancer: MetaBalancer, network: Toy, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
) -> None:
    """A meta-step of a single process."""
    balancer.meta_step(network, lambda: plain(network, first), lambda: plain(network, second), 0.1)


def plain(network: Toy, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    losses, folded, rest = network.terms(network.encoder(data[0]), data[1])
    return torch.stack(losses), torch.stack(folded).sum() + rest


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter's gradient; zeros where backward left none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in network.named_parameters()
    }
