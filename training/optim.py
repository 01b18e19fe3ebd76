"""AdamW with a polynomial schedule, and the groups it works on (Sec. 4.2)."""

from typing import Any

from torch import nn
from torch.optim import AdamW

from training.balancing import Balancer
from training.config import OptimConfig
from training.model import Network


def build_optimizer(network: Network, balancer: Balancer, optim: OptimConfig) -> AdamW:
    """AdamW on the network and the balancer's own parameters, which do not decay and may have a rate."""
    groups = parameter_groups(network, optim)
    own = [parameter for parameter in balancer.parameters() if parameter.requires_grad]
    if own:
        lr = optim.lr if balancer.lr is None else balancer.lr
        groups.append({"params": own, "lr": lr, "weight_decay": 0.0})
    return AdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay)


def parameter_groups(network: Network, optim: OptimConfig) -> list[dict[str, Any]]:
    """The network's trained parameters by learning rate and decay: norms and biases do not decay."""
    encoder = {id(parameter) for parameter in network.image_encoder.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate = optim.encoder_lr or optim.lr if id(parameter) in encoder else optim.lr
        decay = optim.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def rate(update: int, updates_per_epoch: int, epochs: int, optim: OptimConfig) -> float:
    """The factor on all learning rates at an update counted from 0."""
    total = updates_per_epoch * epochs
    done = update if optim.per_step else update // updates_per_epoch * updates_per_epoch
    warm = min(1.0, (update + 1) / optim.warmup_steps) if optim.warmup_steps else 1.0
    return float(warm * max(0.0, 1 - done / total) ** optim.power)
