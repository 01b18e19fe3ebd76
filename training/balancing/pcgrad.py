"""PCGrad (Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.balancing.gram import GramBalancer, pcgrad_solver


class PCGrad(GramBalancer):
    """Each gradient loses its components against those it conflicts with, in random order (Alg. 1 there).

    The order depends on ``seed`` and the step only, so it is the same on every rank and after a resume.
    """

    def __init__(self, tasks: int | Sequence[str], seed: int = 0) -> None:
        super().__init__(tasks)
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.seed = seed
        self._solver = pcgrad_solver()

    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """The sum of the projected gradients, over T."""
        with torch.random.fork_rng(devices=[]):
            seed = int(np.random.default_rng([self.seed, step]).integers(2**63))
            torch.default_generator.manual_seed(seed)  # the CPU's alone, which torchjd draws from
            return self._solver(gramian) / len(gramian)
