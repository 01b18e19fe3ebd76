"""Arrays of published data sets, read without running anything that a file may hold."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data.errors import LabelError


def read_npy(path: Path, dimensions: int) -> Tensor:
    """The numbers in an ``.npy`` file, float32 with that many dimensions; a last axis of 1 is dropped.

    Raises:
        LabelError: the file is damaged, holds no numbers, or has another number of dimensions.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LabelError(path, f"not a readable array ({error})") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise LabelError(path, "holds no array of numbers")
    if values.ndim == dimensions + 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != dimensions or not values.size:
        raise LabelError(path, f"has shape {list(values.shape)}, it must have {dimensions} axes")
    return torch.from_numpy(values.astype(np.float32))
