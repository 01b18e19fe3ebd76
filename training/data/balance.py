"""Drawing photos with rare classes more often."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.encodings import MapFile
from training.data.errors import SourceError
from training.data.sources import Source
from training.tasks import IGNORE_LABEL

_PRESENT = 0.005
"""Share of a photo's labelled pixels from which a class counts as present: less is mostly label noise."""


def _classes_present(file: MapFile) -> NDArray[np.int64]:
    counts = np.bincount(file.read().plain().numpy().ravel(), minlength=256)[:IGNORE_LABEL]
    return np.flatnonzero(counts > _PRESENT * max(1, counts.sum()))


def class_balanced(files: Sequence[MapFile | None], power: float) -> NDArray[np.float64]:
    """Sampling factors [len(files)] with mean 1 from the label files of a source (None: no label).

    A class found in a share f of the labelled photos has the factor (1 / f) ** ``power``; a photo takes the
    largest factor among its classes, and a photo without a label 1, before all are divided by their mean.

    Raises:
        LabelError: a label file cannot be used.
    """
    present = [_classes_present(file) if file else np.empty(0, np.int64) for file in files]
    photos = np.bincount(np.concatenate(present), minlength=1)
    labelled = max(1, sum(file is not None for file in files))
    factors = (labelled / np.maximum(photos, 1)) ** power
    chosen = np.array([factors[classes].max() if classes.size else 1.0 for classes in present])
    balanced: NDArray[np.float64] = chosen / chosen.mean()
    return balanced


def sampling_factors(source: Source) -> NDArray[np.float64]:
    """How often to draw each photo of ``source`` relative to its plain turn, by ``repeat`` and ``balance``.

    Raises:
        SourceError: a ``repeat`` prefix that fits no id, or ``balance`` on a task the source is not read for.
        LabelError: a label file cannot be used.
    """
    config, ids = source.config, source.reader.ids
    factors = np.ones(len(ids))
    if config.balance is not None:
        files = [labels.get(config.balance) for labels in source.reader.labels]
        if not any(files):
            raise SourceError(
                f"source {config.label!r} cannot be balanced by {config.balance!r}: no such label is read"
            )
        factors = class_balanced(files, config.balance_power)
    for prefix, _ in config.repeat:
        if not any(name.startswith(prefix) for name in ids):
            raise SourceError(f"source {config.label!r}: no id starts with the repeat prefix {prefix!r}")
    for index, name in enumerate(ids):
        factors[index] *= next((factor for prefix, factor in config.repeat if name.startswith(prefix)), 1.0)
    return factors
