"""Running statistics of batch norms: they move in the forward pass, before a step turns out to be broken."""

import torch
from torch import Tensor, nn


class RunningStatistics:
    """Those of all batch norms of ``network``, which must be where it trains already.

    A step whose loss is not finite changes no weight, but its activations are in the statistics by then, and
    what is not finite there stays so: the network would train on and predict nothing. Both methods work on
    the device, without a word from it.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        found = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
        self._buffers = [statistic for statistic in found if statistic is not None]

    @torch.no_grad()
    def copy(self) -> Tensor:
        """All of them in one row [N], as they are now."""
        return torch.cat(self._buffers) if self._buffers else torch.empty(0)

    @torch.no_grad()
    def put_back(self, before: Tensor, finite: Tensor) -> None:
        """Put back what is not finite, or everything if the bool scalar ``finite`` is False.

        Args:
            before: what :meth:`copy` gave before the step.
            finite: whether the step's losses are.
        """
        if not self._buffers:
            return
        now = self.copy()
        kept = torch.where(finite & now.isfinite(), now, before)
        torch._foreach_copy_(self._buffers, torch.split(kept, [len(buffer) for buffer in self._buffers]))
