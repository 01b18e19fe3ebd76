"""Drawing images with rare classes more often."""

import numpy as np
from numpy.typing import NDArray

from training.data.errors import SourceError
from training.data.files import composed
from training.data.sources import Source

_PRESENT = 0.005
"""Share of an image's labelled pixels from which a class counts as present: less is mostly label noise."""


def class_balanced(counts: NDArray[np.int64], power: float) -> NDArray[np.float64]:
    """Sampling factors [N] with mean 1 from the ``counts`` [N, classes] of labelled pixels of N images.

    A class found in a share f of the labelled images has the factor (1 / f) ** ``power``; an image takes the
    largest factor among its classes, and an image without a label 1, before all are divided by their mean.
    """
    pixels = counts.sum(1, keepdims=True)
    present = counts > _PRESENT * np.maximum(1, pixels)
    factors = (max(1, np.count_nonzero(pixels)) / np.maximum(present.sum(0), 1)) ** power
    chosen = np.where(present.any(1), np.where(present, factors, 0.0).max(1), 1.0)
    balanced: NDArray[np.float64] = chosen / chosen.mean()
    return balanced


def sampling_factors(source: Source) -> NDArray[np.float64]:
    """How often to draw each image of ``source`` relative to its plain turn, by ``repeat`` and ``balance``.

    Raises:
        SourceError: a ``repeat`` prefix that fits no id, or ``balance`` on a task the source is not read for.
        LabelError: a label file cannot be used.
    """
    config, ids = source.config, [composed(name) for name in source.reader.ids]
    factors = np.ones(len(ids))
    if config.balance is not None:
        if not any(config.balance in labels for labels in source.reader.labels):
            raise SourceError(
                f"source {config.label!r} cannot be balanced by {config.balance!r}: no such label is read"
            )
        factors = class_balanced(source.class_counts(config.balance), config.balance_power)
    repeat = [(composed(prefix), factor) for prefix, factor in config.repeat]
    for prefix, _ in repeat:
        if not any(name.startswith(prefix) for name in ids):
            raise SourceError(f"source {config.label!r}: no id starts with the repeat prefix {prefix!r}")
    for index, name in enumerate(ids):
        factors[index] *= next((factor for prefix, factor in repeat if name.startswith(prefix)), 1.0)
    return factors
