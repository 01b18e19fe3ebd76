"""Fitting confidence heads to observations, and calibrating them on images that nobody was fitted to.

Both minimise cross-entropy, a proper score: the heads that tell right from wrong, then for each task the two
numbers of Platt scaling (Platt 1999; temperature scaling of Guo et al., arXiv 1706.04599, has only the first
of them). A network is right more often on the images that it was trained on, so that what the heads learn
there is too sure elsewhere. Images of the validation split take part in the fit too, for their labels may be
the only true ones, and calibration is cross-fitted: of each image it sees logits of heads that were fitted
without it. Scale and shift are folded into the last layer: what is deployed has no trace of them.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import LBFGS, AdamW

from training.confidence.observations import Observations
from training.model.confidence import ConfidenceHeads

STEPS = 1500
BATCH = 2048
"""Places per step, chosen at random among all."""
RATE = 3e-3
DECAY = 1e-2
ITERATIONS = 100
EMPHASIS = 3.0
"""Weight of a place in a validation image against one in a training image."""


def fit_calibrated(
    heads: ConfidenceHeads, training: Observations, held: Observations, folds: Tensor, seed: int
) -> dict[str, tuple[float, float]]:
    """Fit ``heads`` to both kinds of observations and calibrate them on those that are ``held``.

    Args:
        heads: fitted afresh.
        training: of images that the network was trained on.
        held: of images that it was not; each task of ``heads`` has labels in it (see `fittable`).
        folds: [N] by place in ``held`` the number of its part; parts share no scene. With one part alone
            the heads are fitted to ``training`` only.
        seed: of all random choices.

    Returns:
        By name of each task the scale, 1 / temperature, and the shift.
    """
    parts = sorted(set(folds.tolist()))
    if len(parts) == 1:
        fit(heads, training, seed)
        return calibrate(heads, held)
    logits = torch.empty(len(held.inputs), len(heads.tasks))
    for part in parts:
        inside = folds == part
        trial = copy.deepcopy(heads)
        fit(trial, training.joined(held.chosen(~inside), EMPHASIS), seed)
        logits[inside] = _logits_of(trial, held.chosen(inside))
    fit(heads, training.joined(held, EMPHASIS), seed)
    return calibrate(heads, held, logits)


def fittable(training: Observations, held: Observations, folds: Tensor) -> list[bool]:
    """Of each task observed, whether `fit_calibrated` can serve it.

    There must be labels in ``held`` to calibrate by, and for each part of ``held`` that has some, others
    elsewhere to fit heads to.
    """
    found = []
    for seen, labelled in zip(training.weight.T, held.weight.T, strict=True):
        parts = len(set(folds[labelled > 0].tolist()))
        found.append(parts > 1 or (parts == 1 and bool(seen.any())))
    return found


def fit(heads: ConfidenceHeads, seen: Observations, seed: int) -> None:
    """Train ``heads``, afresh, on what was ``seen``; the result depends on these and ``seed`` alone."""
    inputs = seen.inputs.float()
    mean, deviation = inputs.mean(0), inputs.std(0).clamp_min(1e-3)
    weight = seen.weight / seen.weight.mean(0).clamp_min(torch.finfo().tiny)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in (heads.hidden, heads.output):
            layer.reset_parameters()
        _train(heads, (inputs - mean) / deviation, seen.right, weight)
    _fold_inputs(heads.hidden, mean, deviation)


@torch.enable_grad()
def _train(heads: ConfidenceHeads, inputs: Tensor, right: Tensor, weight: Tensor) -> None:
    heads.train().requires_grad_(True)
    optimizer = AdamW(heads.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        places = torch.randint(len(inputs), (BATCH,))
        loss = _cross_entropy(_logits(heads, inputs[places]), right[places], weight[places])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    heads.eval().requires_grad_(False)


@torch.no_grad()
def _fold_inputs(layer: nn.Conv2d, mean: Tensor, deviation: Tensor) -> None:
    """Have ``layer`` read inputs as they are in place of standardised ones."""
    assert layer.bias is not None
    layer.weight /= deviation[None, :, None, None]
    layer.bias -= layer.weight.flatten(1) @ mean


def calibrate(
    heads: ConfidenceHeads, seen: Observations, logits: Tensor | None = None
) -> dict[str, tuple[float, float]]:
    """Scale and shift the logits of each task so that they say best what was ``seen``.

    ``logits`` [N, T] are those to judge by, of heads like these; None: their own. Returns what
    `fit_calibrated` does.
    """
    if logits is None:
        logits = _logits_of(heads, seen)
    found = {}
    for index, task in enumerate(heads.tasks):
        scale, shift = _platt(logits[:, index], seen.right[:, index], seen.weight[:, index])
        with torch.no_grad():
            assert heads.output.bias is not None
            heads.output.weight[index] *= scale
            heads.output.bias[index] = heads.output.bias[index] * scale + shift
        found[task.name] = (float(scale), float(shift))
    return found


@torch.enable_grad()
def _platt(logits: Tensor, right: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    numbers = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    logits, right, weight = logits.double(), right.double(), weight.double() / weight.double().sum()
    optimizer = LBFGS([numbers], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = F.binary_cross_entropy_with_logits(
            numbers[0] * logits + numbers[1], right, weight, reduction="sum"
        )
        error.backward()  # type: ignore[no-untyped-call]
        return error

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale, shift = numbers.detach()
    return scale, shift


@torch.no_grad()
def _logits_of(heads: ConfidenceHeads, seen: Observations) -> Tensor:
    return _logits(heads, seen.inputs.float())


def _logits(heads: ConfidenceHeads, inputs: Tensor) -> Tensor:
    """Inputs [N, inputs] -> logits [N, T]."""
    return heads.logits(inputs[:, :, None, None]).flatten(1)


def _cross_entropy(logits: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    return (F.binary_cross_entropy_with_logits(logits, right, reduction="none") * weight).mean()
