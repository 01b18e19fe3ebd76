"""Bilinear resizing, as training, scoring and exported graphs have it."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resized(values: Tensor, size: Sequence[int]) -> Tensor:
    """[B,C,h,w] -> [B,C,*size], ``align_corners=False``."""
    return F.interpolate(values, size, mode="bilinear", align_corners=False)
