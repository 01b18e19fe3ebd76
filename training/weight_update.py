"""The weights after the gradients of several batches: one optimizer step, or none."""

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training.balancing import StepResult
from training.distributed import unscale
from training.model import Network
from training.optim import GuardedAdamW


class WeightUpdate:
    """One optimizer step on the gradients of the batches of `add`; the device decides whether it is made.

    ``stepper`` is ``optimizer`` as `fabric` has set it up.
    """

    def __init__(
        self, fabric: Fabric, optimizer: GuardedAdamW, stepper: Any, clip_norm: float | None
    ) -> None:
        self._fabric = fabric
        self._optimizer, self._stepper = optimizer, stepper
        self._clip_norm = clip_norm
        self._spoilt = self._taught = torch.zeros((), dtype=torch.bool, device=fabric.device)
        self.pending = 0
        """Batches whose gradients wait for `make`."""

    def add(self, result: StepResult, labelled: Tensor) -> None:
        """Count a batch in, with a bool: whether any image of it has a label."""
        self._spoilt = ~result.finite | self._spoilt if self.pending else ~result.finite
        self._taught = labelled | self._taught if self.pending else labelled
        self.pending += 1

    def make(self, network: Network) -> tuple[Tensor, Tensor]:
        """Step on the gradients at hand, unless a loss or the gradient is not finite, or nothing had a label.

        Returns two bools of the device: the gradient of finite losses is not finite, and the weights have
        changed.
        """
        trained = [parameter for parameter in network.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        unscale(self._fabric, self._optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self._clip_norm, norm)
        overflowed = ~norm.isfinite()
        skip = self._spoilt | ~self._taught | overflowed
        self._optimizer.skip = skip.float()
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        self.pending = 0
        return overflowed & ~self._spoilt, ~skip
