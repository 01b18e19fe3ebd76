"""The coherence fusion module (Sec. 3.3, Fig. 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.affinity import attend
from training.model.cbam import CBAM
from training.model.config import CoherenceConfig
from training.model.sized import Sized
from training.model.stacked import by_task, pointwise


def cosine_distance(main: Tensor, others: Tensor, axis: int = 1) -> Tensor:
    """Mean over pixels of 1 - cos between two feature maps with channels on ``axis``; a scalar in 0..2."""
    precise = torch.promote_types(main.dtype, torch.float32)
    return (1 - functional.cosine_similarity(main.to(precise), others.to(precise), dim=axis)).mean()


class Others(Sized):
    """By T: for each task the indices of all other tasks in order, [T, T - 1]."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        (tasks,) = size
        before = torch.arange(tasks - 1, device=device)
        return before + (before >= torch.arange(tasks, device=device)[:, None]).long()


class Slots(Sized):
    """By T: where task j stands among the others of task i, and T - 1 for j = i, [T, T]."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        (tasks,) = size
        source = torch.arange(tasks, device=device)
        slots = source - (source > source[:, None]).long()
        return slots.masked_fill(source == source[:, None], tasks - 1)


class CFM(nn.Module):
    """Fuses each task with a gated concatenation of all other tasks.

    The affinity softmax_rows(a1^T a2) m^T over all positions is attention with query a1, key a2 and value m;
    the tasks stand for the heads, and the L x L matrix is never whole; see `training.model.affinity`.

    Args:
        tasks: T, at least 2.
        channels: C, of each task's X.
        config: the deviations from the paper.
    """

    def __init__(self, tasks: int, channels: int, config: CoherenceConfig) -> None:
        super().__init__()
        others = tasks - 1
        mixed = config.mixed_channels or channels * others
        self.tasks = tasks
        self.config = config
        self.gate = pointwise(tasks if config.shared_gates else tasks * others, channels, channels)
        self.mix = pointwise(tasks, channels * others, mixed)
        self.main = nn.Sequential(CBAM(tasks, channels), nn.BatchNorm2d(tasks * channels))
        if config.main_relu:
            self.main.append(nn.ReLU(inplace=True))
        self.query, self.key = (
            nn.Sequential(CBAM(tasks, mixed), nn.BatchNorm2d(tasks * mixed), nn.ReLU(inplace=True))
            for _ in range(2)
        )
        self.out = nn.Sequential(CBAM(tasks, channels), nn.BatchNorm2d(tasks * channels))
        self.project = pointwise(tasks, mixed, channels)  # for the cosine term: training only
        self.others = Others()
        self.slots = Slots()

    def _mixed(self, x: Tensor) -> Tensor:
        """F, the other tasks of each task gated and mixed: [B, T*C, h, w] -> [B, T*D, h, w].

        A gate of each source needs no copy of the sources: the mix is then one convolution over all tasks
        whose weights from a task to itself are zero.
        """
        if not self.config.shared_gates:
            index = self.others(self.tasks, like=x).flatten()
            x = by_task(x, self.tasks).index_select(1, index).flatten(1, 2)
        gated = x * self.gate(x).sigmoid()
        if not self.config.shared_gates:
            mixed: Tensor = self.mix(gated).relu()
            return mixed
        weight = self.mix.weight.view(self.tasks, -1, self.tasks - 1, self.gate.out_channels // self.tasks)
        weight = functional.pad(weight, (0, 0, 0, 1))
        weight = weight.take_along_dim(self.slots(self.tasks, like=x)[:, None, :, None], 2)
        return functional.conv2d(gated, weight.reshape(-1, x.shape[1], 1, 1), self.mix.bias).relu()

    def _pooled(self, x: Tensor) -> Tensor:
        stride = self.config.kv_stride
        ragged = bool(x.shape[-2] % stride or x.shape[-1] % stride)
        return x if stride == 1 else functional.avg_pool2d(x, stride, ceil_mode=ragged)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """O: [B, T*C, h, w] from a1 [B, T*D, h, w], a2 [B, T*D, ...] and m [B, T*C, ...]."""
        height, width = query.shape[-2:]
        q, k, v = (by_task(x, self.tasks).flatten(3).transpose(2, 3) for x in (query, key, value))
        scale = 1.0 if self.config.affinity_scale == "one" else q.shape[-1] ** -0.5
        fused = attend(q, k, v, scale)
        return fused.transpose(2, 3).reshape(-1, value.shape[1], height, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """X [B, T*C, h, w] -> (H [B, T*C, h, w], cosine term; None in evaluation)."""
        mixed = self._mixed(x)
        pooled = self._pooled(mixed)
        value = self.main(self._pooled(x))
        fused = self.out(self._attend(self.query(mixed), self.key(pooled), value))
        if self.config.residual:
            fused = fused + x
        if not self.training:
            return fused, None
        projected = by_task(self.project(pooled), self.tasks)
        return fused, cosine_distance(by_task(value, self.tasks), projected, axis=2)
