"""From a trained network to one that says how sure it is: fit, calibrate, and score what was held out."""

import logging
from collections.abc import Sequence

import torch

from training.confidence.fit import fit_calibrated, fittable
from training.confidence.halves import RUN, calibration_half, folds, held_out_half
from training.confidence.observations import observe
from training.config import ConfigError, RunConfig
from training.data import DataError
from training.evaluation import Validation, validation_sources
from training.metrics import Report
from training.model import MTCP, Network, build_network
from training.tasks import Task
from training.views import BATCH, training_views

log = logging.getLogger(__name__)

_HEADS = "branches.confidence."

WHOLE = 0.5
"""Least share of images that are looked at whole, as a server does; the others are views as in training."""


def add_confidence(
    network: Network, config: RunConfig, images: int, device: torch.device | str, quiet: bool = False
) -> tuple[MTCP, Report]:
    """Fit confidence heads to ``network``, whose own weights stay as they are.

    Args:
        network: a trained one; heads that it has already are replaced.
        config: of its run, with the sources where they are now.
        images: views of training images to fit on.
        device: where the network runs.
        quiet: no progress bars.

    Returns:
        The network with heads for the tasks that have labels to fit to and to calibrate by, a warning names
        the others; and all metrics on the held-out half of the validation sources.

    Raises:
        ConfigError: no network of kind mtcp, or no validation source.
        DataError: a source or label that cannot be used, or no task has labels to calibrate by.
    """
    bare = _with_heads(network, network.tasks)
    if not config.data.val:
        raise ConfigError("data.val: confidences are calibrated on a validation source; give one")
    sources = validation_sources(config.data, config.tasks)
    half, workers = calibration_half(sources), config.data.workers
    bare.to(device)
    augment = config.data.augment
    augment = augment.model_copy(update={"whole": max(WHOLE, augment.whole)})
    training = observe(bare, training_views(config, images, augment, device, quiet), config.seed)
    held = observe(bare, Validation(half, BATCH, device, workers, quiet).batches(), config.seed)
    parts = torch.tensor(folds(half))[held.image]
    columns = [index for index, can in enumerate(fittable(training, held, parts)) if can]
    confident = _with_heads(network, [network.tasks[index] for index in columns])
    _tell_left_out(network.tasks, confident.confident)
    heads = confident.branches.confidence
    assert heads is not None
    training, held = (seen.of_tasks(columns) for seen in (training, held))
    for task, numbers in fit_calibrated(heads, training, held, parts, config.seed).items():
        log.info("%s: logits times %.3f, plus %.3f", task, *numbers)
    rest = held_out_half(sources)
    if not any(len(part) for part in rest):
        log.warning("no validation source has more than %d images: nothing is left to judge by", RUN)
    judged = Validation(rest, BATCH, device, workers, quiet)
    return confident, judged.score({"network": confident.to(device)})["network"]


def _with_heads(network: Network, tasks: Sequence[Task]) -> MTCP:
    """``network`` with confidence heads for ``tasks``, which are still to be fitted."""
    if not isinstance(network, MTCP):
        raise ConfigError("model: confidences need a network of kind mtcp")
    names = tuple(task.name for task in tasks)
    every = len(names) == len(network.tasks)
    confident = build_network(network.config.model_copy(update={"confidence": every or names}))
    assert isinstance(confident, MTCP)
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith(_HEADS)}
    confident.load_state_dict(weights, strict=False)
    return confident.eval()


def _tell_left_out(tasks: Sequence[Task], confident: Sequence[Task]) -> None:
    left = ", ".join(task.name for task in tasks if task not in confident)
    if not confident:
        raise DataError(f"data.val: no task ({left}) has labels to calibrate a confidence by")
    if left:
        log.warning(
            "no confidence of %s: the half of the validation sources to calibrate by has no labels of it, or "
            "nothing else has any to fit to",
            left,
        )
