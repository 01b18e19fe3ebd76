"""IMTL, both halves (Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from training.balancing.base import Balancer, Observation, TaskWeights, present
from training.balancing.imtl_g import impartial


class IMTL(Balancer):
    """IMTL-L on the heads, IMTL-G for the encoder on the losses that IMTL-L scaled.

    Raises:
        ValueError: ``lr``, the learning rate of IMTL-L's scales, negative; None: the run's.
    """

    needs_gramian: ClassVar[bool] = True
    separate_encoder_weights: ClassVar[bool] = True

    def __init__(self, tasks: int | Sequence[str], lr: float | None = None) -> None:
        super().__init__(tasks)
        self.learn_at(lr)
        self.log_scale = nn.Parameter(torch.zeros(self.tasks))

    def forward(self, observation: Observation) -> TaskWeights:
        """e^s on the heads, with its regulariser; a e^s on the encoder, a of the gradients of e^s L."""
        loss_weights = self.log_scale.exp()
        scale = loss_weights.detach()
        gradient_weights = impartial(scale[:, None] * observation.gram * scale) * scale
        return TaskWeights(
            loss_weights, gradient_weights, -(self.log_scale * present(observation.losses)).sum()
        )
