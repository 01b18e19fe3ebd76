"""From a step's losses to the one scalar whose one backward pass trains decoders, encoder and balancer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.balancing.base import Balancer, Observation, StepResult, TaskLosses, TaskWeights


class _Receive(torch.autograd.Function):
    """<z, gradient> without its value: a scalar 0 whose gradient with respect to z is ``gradient``."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = z.dtype
        return gradient.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return (upstream[0] * gradient).to(ctx.dtype), None


def gramian(gradients: Sequence[Tensor]) -> Tensor:
    """K [T, T] of T gradients of one shape."""
    count = len(gradients)
    products = gradients[0].new_zeros(count, count)
    for i in range(count):
        for j in range(i + 1):
            products[i, j] = products[j, i] = (gradients[i] * gradients[j]).sum()
    return products


class Engine(nn.Module):
    """Losses of one forward pass -> the scalar of exactly one backward pass.

    Methods without encoder weights train on w . L + auxiliary losses + coherence loss + penalty. For
    methods with them (*split* mode) the decoders work on a detached copy of the shared representation z, the
    leaf. There L_i includes the task's auxiliary losses, whose encoder gradient would be lost otherwise,
    g_i = dL_i/dleaf is taken once per task, and the scalar w . L + coherence loss + penalty gets a term
    of value 0 whose gradient with respect to z is sum_i a_i g_i + the coherence loss' own. So one backward
    covers decoders and encoder; DDP's hooks fire once, gradient accumulation and loss scaling act on all of
    it alike.

    With DDP every rank works on its samples, and one all-reduce of T^2 + 2 T + 1 numbers (K, both kinds of
    L_i, the rest) makes all ranks choose the same weights. As a sample's entries of z meet its own loss only,
    the joined batch's loss, the mean of the ranks' losses, has the gradients g_i^r / R, r = 1..R, so K =
    sum_r K_r / R^2 exactly (but for batch statistics, which belong to a rank). The balancer's parameters get
    their gradient from the averaged losses, the same on all ranks; they need no DDP.

    Args:
        balancer: the method.
        update_interval: a method that needs the Gramian is asked at each such step; in between its weights
            are used again and its parameters rest.
        reduce: averages a small fp32 tensor over the ranks.
        ranks: R.

    Raises:
        ValueError: ``update_interval`` or ``ranks`` below 1.
    """

    loss_weights: Tensor
    gradient_weights: Tensor

    def __init__(
        self,
        balancer: Balancer,
        *,
        update_interval: int = 1,
        reduce: Callable[[Tensor], Tensor] = lambda numbers: numbers,
        ranks: int = 1,
    ) -> None:
        super().__init__()
        if update_interval < 1 or ranks < 1:
            raise ValueError(
                f"update_interval and ranks must be at least 1, got {update_interval} and {ranks}"
            )
        self.balancer = balancer
        self.update_interval, self.ranks = update_interval, ranks
        self._reduce = reduce
        self.register_buffer("loss_weights", torch.ones(balancer.tasks))
        self.register_buffer("gradient_weights", torch.ones(balancer.tasks))
        self._asked = False  # on the host: nothing of a step is read back from the device

    def get_extra_state(self) -> Tensor:
        """Whether the balancer was asked before, for a checkpoint."""
        return torch.tensor(self._asked)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from :meth:`get_extra_state`."""
        self._asked = bool(state)

    @property
    def weights(self) -> TaskWeights:
        """The latest weights, detached; all 1 before the first step."""
        return TaskWeights(
            self.loss_weights.clone(),
            self.gradient_weights.clone() if self.balancer.separate_encoder_weights else None,
        )

    def leaf(self, shared: Tensor) -> Tensor:
        """What the decoders work on: ``shared`` [B, C, h, w] itself, or in split mode a detached leaf."""
        return shared.detach().requires_grad_() if self.balancer.separate_encoder_weights else shared

    def total(
        self,
        terms: TaskLosses,
        shared: Tensor,
        leaf: Tensor,
        *,
        epoch: int,
        step: int,
        scale: float = 1.0,
    ) -> StepResult:
        """Ask the balancer for weights and build the step's scalar.

        A step with a loss that is not finite is kept from the balancer, which sees one without labels; the
        weights stay as they were. So they do where a g_i overflows under a loss scale, which the balancer
        sees as a task without a gradient: the step will be skipped, the weights may be used again.

        Args:
            terms: the step's losses; the auxiliary ones are weighted in split mode only.
            shared: z, attached to the encoder.
            leaf: what :meth:`leaf` made of it and the decoders used.
            epoch: counted from 0.
            step: counted from 0 over the run.
            scale: the current loss scale of fp16 training, so that g_i survives fp16 layers; g_i is divided
                by it in fp32. An overflowing g_i is then left in the gradient of z, for the loss scaler to
                skip the step and lower the scale. With scale 1 a g_i that is not finite counts as zero.
        """
        final = [loss.float() for loss in terms.losses]
        aux = [loss.float() for loss in terms.aux_losses]
        split = self.balancer.separate_encoder_weights
        tasks = [a + b for a, b in zip(final, aux, strict=True)] if split else final
        rest = terms.coherence_loss.float()
        if not split:
            rest = rest + torch.stack(aux).sum()
        fresh = self._fresh(step)
        gradients: list[Tensor] = []
        if fresh and self.balancer.needs_gramian:
            gradients = [self._gradient(loss, leaf, scale) for loss in tasks]
        observation, raw, finite, sound = self._observe(final, tasks, rest, gradients, epoch, step)
        objective = torch.stack(tasks)
        if fresh:
            weights = self.balancer(observation)
            self._remember(weights, finite & sound if scale != 1 else finite)
        else:
            weights = self.weights
        total = _weighted(weights.loss_weights, objective, observation.losses) + rest + weights.penalty
        if split:
            total = total + _Receive.apply(
                shared, self._encoder_gradient(gradients, objective, rest, leaf, scale)
            )
        total = total.masked_fill(~finite, torch.nan)  # also on a rank whose own losses are finite
        heads = self.loss_weights.clone()
        encoder = self.gradient_weights.clone() if split else heads
        return StepResult(total, raw, heads, encoder, terms.supervised, finite)

    def _fresh(self, step: int) -> bool:
        if not self.balancer.needs_gramian or not self._asked:
            return True
        return step % self.update_interval == 0 and not self.balancer.settled(step)

    def _gradient(self, loss: Tensor, leaf: Tensor, scale: float) -> Tensor:
        if not loss.requires_grad:
            return torch.zeros_like(leaf, dtype=torch.float32)
        (gradient,) = torch.autograd.grad(loss * scale, leaf, retain_graph=True, materialize_grads=True)
        if scale != 1:
            return gradient.float() / scale
        return gradient.float().masked_fill(~gradient.isfinite().all(), 0)

    def _observe(
        self,
        final: list[Tensor],
        tasks: list[Tensor],
        rest: Tensor,
        gradients: list[Tensor],
        epoch: int,
        step: int,
    ) -> tuple[Observation, Tensor, Tensor, Tensor]:
        """What the balancer sees, the raw losses [T], whether all losses are finite, and all gradients.

        It is the same on every rank. A gradient that is not finite, or too long for fp32, counts as zero.
        """
        count = self.balancer.tasks
        numbers = [torch.stack(final).detach(), torch.stack(tasks).detach(), rest.detach().reshape(1)]
        if gradients:
            numbers.append(gramian(gradients).flatten())
        averaged = self._reduce(torch.cat(numbers))
        raw = averaged[:count]
        finite = averaged[: 2 * count + 1].isfinite().all()
        shown = averaged[count:].masked_fill(~finite, 0)
        if not gradients:
            return Observation(shown[:count], epoch, step), raw, finite, torch.ones_like(finite)
        products = shown[count + 1 :].reshape(count, count) / self.ranks
        fine = products.diagonal().isfinite()
        gram = products.masked_fill(~(fine & fine[:, None]), 0)
        return Observation(shown[:count], epoch, step, gram), raw, finite, fine.all()

    def _remember(self, weights: TaskWeights, finite: Tensor) -> None:
        encoder = weights.loss_weights if weights.gradient_weights is None else weights.gradient_weights
        self.loss_weights.copy_(torch.where(finite, weights.loss_weights.detach(), self.loss_weights))
        self.gradient_weights.copy_(torch.where(finite, encoder.detach(), self.gradient_weights))
        self._asked = True

    def _encoder_gradient(
        self, gradients: list[Tensor], objective: Tensor, rest: Tensor, leaf: Tensor, scale: float
    ) -> Tensor:
        """sum_i a_i g_i + dextras/dleaf; without the single g_i at hand in one pass."""
        if not gradients:
            return self._gradient((self.gradient_weights * objective).sum() + rest, leaf, scale)
        total = self._gradient(rest, leaf, scale)
        for weight, gradient in zip(self.gradient_weights, gradients, strict=True):
            total.addcmul_(weight, gradient)
        return total


def _weighted(weights: Tensor, losses: Tensor, averaged: Tensor) -> Tensor:
    """weights . losses, where the weights' own gradient comes from the losses averaged over the ranks."""
    total = (weights.detach() * losses).sum()
    if weights.requires_grad:
        own = (weights * averaged).sum()
        total = total + own - own.detach()
    return total
