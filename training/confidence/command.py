"""From a trained network to one that says how sure it is: fit, calibrate, and score what was held out."""

import logging

import torch

from training.confidence.fit import fit_calibrated
from training.confidence.halves import RUN, calibration_half, folds, held_out_half
from training.confidence.observations import observe
from training.config import ConfigError, RunConfig
from training.evaluation import Validation, validation_sources
from training.metrics import Report
from training.model import MTCP, ModelConfig, Network, build_network
from training.views import BATCH, training_views

log = logging.getLogger(__name__)

WHOLE = 0.5
"""Least share of images that are looked at whole, as a server does; the others are views as in training."""


def add_confidence(
    network: Network, config: RunConfig, images: int, device: torch.device | str, quiet: bool = False
) -> tuple[MTCP, Report]:
    """Fit confidence heads to ``network``, whose own weights stay as they are.

    Args:
        network: a trained one; heads that it has already are fitted afresh.
        config: of its run, with the sources where they are now.
        images: views of training images to fit on.
        device: where the network runs.
        quiet: no progress bars.

    Returns:
        The network with its heads, and all metrics on the held-out half of the validation sources.

    Raises:
        ConfigError: no network of kind mtcp, or no validation source.
        DataError: a source or label that cannot be used.
    """
    confident = _with_heads(network)
    heads = confident.branches.confidence
    assert heads is not None
    if not config.data.val:
        raise ConfigError("data.val: confidences are calibrated on a validation source; give one")
    sources = validation_sources(config.data, config.tasks)
    half, workers = calibration_half(sources), config.data.workers
    confident.to(device)
    augment = config.data.augment
    augment = augment.model_copy(update={"whole": max(WHOLE, augment.whole)})
    training = observe(confident, training_views(config, images, augment, device, quiet), config.seed)
    held = observe(confident, Validation(half, BATCH, device, workers, quiet).batches(), config.seed)
    parts = torch.tensor(folds(half))[held.image]
    for task, numbers in fit_calibrated(heads.cpu(), training, held, parts, config.seed).items():
        log.info("%s: logits times %.3f, plus %.3f", task, *numbers)
    rest = held_out_half(sources)
    if not any(len(part) for part in rest):
        log.warning("no validation source has more than %d images: nothing is left to judge by", RUN)
    judged = Validation(rest, BATCH, device, workers, quiet)
    return confident, judged.score({"network": confident.to(device)})["network"]


def _with_heads(network: Network) -> MTCP:
    """``network`` with confidence heads, which are still to be fitted."""
    if not isinstance(network, MTCP):
        raise ConfigError("model: confidences need a network of kind mtcp")
    settings = network.config.model_dump() | {"confidence": True}
    confident = build_network(ModelConfig.model_validate(settings))
    assert isinstance(confident, MTCP)
    confident.load_state_dict(network.state_dict(), strict=False)  # it may have no heads yet
    return confident.eval()
