"""Random loss weighting (Lin et al., "Reasonable Effectiveness of Random Weighting", TMLR 2022)."""

from collections.abc import Sequence

import numpy as np
import torch

from training.balancing.base import Balancer, Observation, TaskWeights


class RandomWeights(Balancer):
    """w = T softmax(x), x ~ N(0, I), anew at each step (RLW, Sec. 3, with the normal distribution).

    The draw depends on ``seed`` and the step only, so it is the same on every rank and after a resume.
    """

    def __init__(self, tasks: int | Sequence[str], seed: int = 0) -> None:
        super().__init__(tasks)
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.seed = seed

    def forward(self, observation: Observation) -> TaskWeights:
        """The step's draw."""
        normal = np.random.default_rng([self.seed, observation.step]).standard_normal(self.tasks)
        return TaskWeights(self.tasks * torch.from_numpy(normal).to(observation.losses).softmax(0))
