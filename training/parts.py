"""The parts of a run, as its configuration names them; what cannot be built is a wrong setting."""

import logging
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training import model
from training.balancing import Engine, build_balancer
from training.balancing.base import Balancer
from training.config import ConfigError, RunConfig
from training.dataloader import Feed
from training.distributed import autocast
from training.graphs import GraphedStep, capture_all, refusal
from training.model import Network
from training.model.pretrained import check_init
from training.objective import Objective

log = logging.getLogger(__name__)


def build_network(config: RunConfig) -> Network:
    """The network to train, with fresh weights, of which ``optim.train_only`` are to be trained.

    Raises:
        ConfigError: there is no such network, it has no such parameters, or it is one with confidences.
    """
    if getattr(config.model, "confidence", False):
        raise ConfigError(
            "model.confidence: it comes after training; set it to false, and "
            "'python -m training confidence CHECKPOINT -o WEIGHTS' adds it to what was trained"
        )
    try:
        network = model.build_network(config.model)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    if config.optim.train_only:
        try:
            network.train_only(config.optim.train_only)
        except ValueError as error:
            raise ConfigError(f"optim.train_only: {error}") from error
    if config.optim.freeze_statistics:
        if config.init is None:
            raise ConfigError(
                "optim.freeze_statistics: random weights have no statistics to keep; name weights in init"
            )
        network.freeze_statistics()
    return network


def chosen_balancer(config: RunConfig) -> Balancer:
    """The balancing method of a run.

    Raises:
        ConfigError: there is no such method, it has no such option, or not with such a value.
    """
    chosen = config.balancer
    try:
        names = [task.name for task in config.tasks]
        return build_balancer(chosen.name, names, chosen.options, config.seed)
    except ValueError as error:
        raise ConfigError(f"balancer: {error}") from error


def check_settings(config: RunConfig) -> None:
    """What can be said of the settings of a run before data are read and a network is built.

    Raises:
        ConfigError: as `chosen_balancer`, or torch has no backend ``compile`` here.
        WeightsError: there are no such starting weights.
    """
    chosen_balancer(config)
    check_init(config.init)
    if config.compile:
        known = torch.compiler.list_backends(exclude_tags=())
        if config.compile not in known:
            raise ConfigError(f"compile: no backend {config.compile!r}; there are {', '.join(known)}")


def build_engine(config: RunConfig, mean: Callable[[Tensor], Tensor], fabric: Fabric) -> Engine:
    """The balancing method at work; ``mean`` is over the ranks. A run too short for it, or an
    ``update_interval`` that it has no use for, gets a warning.

    Raises:
        ConfigError: as `chosen_balancer`.
    """
    balancer = chosen_balancer(config)
    late = balancer.first_epoch >= config.epochs and config.minutes is None
    if late and fabric.is_global_zero:
        log.warning(
            "balancer: %s keeps its first weights for %d epochs, and the run has %d: they never change",
            *(config.balancer.name, balancer.first_epoch, config.epochs),
        )
    interval = config.balancer.update_interval
    if interval > 1 and not balancer.needs_gramian and fabric.is_global_zero:
        log.warning("balancer.update_interval: not used, %s looks at no task gradients", config.balancer.name)
    engine = Engine(balancer, update_interval=interval, reduce=mean, ranks=fabric.world_size)
    return engine.to(fabric.device)


def captured(
    config: RunConfig, fabric: Fabric, network: Network, objective: Objective, balancer: Balancer, feed: Feed
) -> GraphedStep | None:
    """CUDA graphs of all sizes of batches; None, with a warning, where they cannot be used."""
    why = refusal(config, fabric.device, fabric.world_size, balancer)
    if why is not None:
        log.warning("cuda_graphs: not used, %s", why)
        return None
    network.train()
    graphs = GraphedStep(network, objective, lambda: autocast(config, fabric.device))
    return graphs if capture_all(graphs, feed.examples()) else None
