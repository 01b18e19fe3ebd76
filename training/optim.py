"""AdamW, the groups it works on (Sec. 4.2), and its guard against steps that are not finite."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from training.balancing import Balancer
from training.config import OptimConfig
from training.model import Network


class GuardedAdamW(AdamW):
    """AdamW whose step changes nothing where a number on the device says so.

    ``skip`` is a float32 scalar on the device of the weights: 1 keeps weights, moments and step counts as
    they are, as a loss scaler does after an overflow. The host never learns which; None: no guard.
    """

    skip: Tensor | None = None

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        super().__init__(groups, lr=lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update, or none."""
        if self.skip is None:
            return self._step(closure)
        overflow: Tensor | None = getattr(self, "found_inf", None)  # of a loss scaler
        self.found_inf = self.skip if overflow is None else torch.maximum(self.skip, overflow)
        try:
            return self._step(closure)
        finally:
            if overflow is None:
                del self.found_inf

    def _step(self, closure: Callable[[], float] | None) -> float | None:
        loss: float | None = super().step(closure)
        return loss


def build_optimizer(network: Network, balancer: Balancer, optim: OptimConfig) -> GuardedAdamW:
    """AdamW on the network and the balancer's own parameters, which do not decay and may have a rate."""
    groups = parameter_groups(network, optim)
    own = [parameter for parameter in balancer.parameters() if parameter.requires_grad]
    if own:
        lr = optim.lr if balancer.lr is None else balancer.lr
        groups.append({"params": own, "lr": lr, "weight_decay": 0.0})
    for group in groups:
        group["initial_lr"] = group["lr"]
    return GuardedAdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay)


def set_rate(optimizer: AdamW, factor: float) -> None:
    """Let every group learn at ``factor`` times its own learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def parameter_groups(network: Network, optim: OptimConfig) -> list[dict[str, Any]]:
    """The network's trained parameters by learning rate and decay; see ``optim.decay_norms_and_biases``."""
    encoder = {id(parameter) for parameter in network.image_encoder.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate = optim.encoder_lr or optim.lr if id(parameter) in encoder else optim.lr
        decays = parameter.ndim > 1 or optim.decay_norms_and_biases
        groups.setdefault((rate, optim.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
