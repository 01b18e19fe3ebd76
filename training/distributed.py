"""Where a run computes: on one device or on several that share each batch, through Lightning Fabric."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Sampler

from training.config import ConfigError, RunConfig
from training.data import MixtureSampler, SampleKey


class DeviceError(ConfigError):
    """This machine has no such device."""


def usable_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        ConfigError: torch does not know it.
        DeviceError: there is none of its kind here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name}: torch knows no such device; choose device=cpu") from error
    found = torch.accelerator.current_accelerator(check_available=True)
    if device.type != "cpu" and (found is None or found.type != device.type):
        raise DeviceError(f"device {name}: torch sees no such device here; choose device=cpu")
    return device


def launch(config: RunConfig) -> Fabric:
    """The processes of a run: those that torchrun started, or ``config.devices`` of them.

    With more than one, this starts the others by running the same command again.

    Raises:
        ConfigError: the batch cannot be shared evenly, or the device does not exist.
    """
    device = usable_device(config.device)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", config.devices))
    nodes = int(os.environ["WORLD_SIZE"]) // local if "LOCAL_WORLD_SIZE" in os.environ else 1
    ranks = local * nodes
    if config.data.batch_size % ranks:
        raise ConfigError(f"data.batch_size {config.data.batch_size} cannot be shared by {ranks} processes")
    fabric = Fabric(
        accelerator=device.type,
        devices=local if device.index is None else [device.index],
        num_nodes=nodes,
        strategy="ddp" if ranks > 1 else "auto",
        plugins=_precision(config.precision, device.type),
    )
    fabric.launch()
    return fabric


def _precision(precision: str, device: str) -> list[Any]:
    if precision == "bf16":
        return [MixedPrecision("bf16-mixed", device)]
    if precision == "fp16":
        return [MixedPrecision("16-mixed", device, torch.amp.GradScaler(device))]
    return []


def autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """The precision of the network, without the cache of casts that CUDA graphs cannot have."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(
        device.type,
        dtype=kinds.get(config.precision),
        enabled=config.precision in kinds,
        cache_enabled=False,
    )


def loss_scale(fabric: Fabric) -> float:
    """The factor by which fp16 training multiplies its loss now; 1 in other precisions."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())


def unscale(fabric: Fabric, optimizer: Optimizer) -> None:
    """Divide gradients by the loss scale of fp16 training; Fabric will not do that for a fused optimizer."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None:
        scaler.unscale_(optimizer)


def mean_over_ranks(fabric: Fabric, numbers: Tensor) -> Tensor:
    """A small tensor averaged over the ranks; itself where there is one."""
    if fabric.world_size == 1:
        return numbers
    averaged = fabric.all_reduce(numbers.clone(), reduce_op="mean")
    assert isinstance(averaged, Tensor)
    return averaged


def share_clock(fabric: Fabric) -> Callable[[float], float]:
    """What gives every rank the number of rank 0; each must call it."""
    if fabric.world_size == 1:
        return lambda number: number
    return lambda number: float(fabric.broadcast(torch.tensor(number, dtype=torch.float64)))


def share_buffers(fabric: Fabric, network: nn.Module) -> None:
    """Give every rank the running statistics of rank 0, which are those that are saved."""
    if fabric.world_size > 1:
        for buffer in network.buffers():
            buffer.copy_(fabric.broadcast(buffer))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Let the randomness of a step (drop-path) depend on these three numbers alone, so that it resumes."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))


class ShardSampler(Sampler[SampleKey]):
    """Each rank's part of every batch of one global order; all ranks' parts together are the batch.

    Args:
        sampler: the global order, the same on all ranks.
        batch_size: of the joined batch; a multiple of ``ranks``.
        rank: which part.
        ranks: how many parts.
    """

    def __init__(self, sampler: MixtureSampler, batch_size: int, rank: int, ranks: int) -> None:
        self.sampler, self.part = sampler, batch_size // ranks
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return len(self.sampler) // self.ranks

    def __iter__(self) -> Iterator[SampleKey]:
        keys = list(self.sampler)
        whole = len(keys) // self.ranks * self.ranks  # a short last batch is shared evenly too
        for start in range(0, whole, self.part * self.ranks):
            batch = keys[start : min(start + self.part * self.ranks, whole)]
            part = len(batch) // self.ranks
            yield from batch[self.rank * part : (self.rank + 1) * part]
