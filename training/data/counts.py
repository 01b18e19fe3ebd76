"""How many pixels of each target id the label files of a source hold."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from training.data.encodings import MapFile
from training.label_spaces import IGNORE_LABEL

THREADS = min(16, os.cpu_count() or 1)
"""Decoding leaves Python's lock, so files are read in parallel."""


def target_counts(files: Sequence[MapFile | None]) -> NDArray[np.int64]:
    """Pixels of each target id, [len(files), 255]; all 0 where there is no file.

    Raises:
        LabelError: a label file cannot be used.
    """
    counts = np.zeros((len(files), IGNORE_LABEL), np.int64)
    present = [index for index, file in enumerate(files) if file is not None]
    with ThreadPoolExecutor(THREADS) as pool:
        for index, row in zip(present, pool.map(_count, (files[index] for index in present)), strict=True):
            counts[index] = row
    return counts


def _count(file: MapFile | None) -> NDArray[np.int64]:
    assert file is not None
    ids = file.read().plain().numpy()
    return np.bincount(ids.ravel(), minlength=IGNORE_LABEL + 1)[:IGNORE_LABEL]
