"""The network as it is deployed: an image in, typed maps out, nothing of training inside."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtcp_serve.kinds.confidence import SUFFIX
from training.postprocess import confidence_maps, deployment_maps
from training.tasks import Kind, Task


class DeploymentGraph(nn.Module):
    """A network between its pre- and post-processing, for inference at one fixed size.

    Args:
        network: takes RGB [B,3,H,W] in 0..255 and returns an object whose ``final`` holds, by task name, a
            prediction [B,channels,h,w]. It is put into evaluation mode, and its
            parameters need no gradients from now on. It may have ``confident``, tasks for which
            ``confidence`` of that object has logits [B,1,h,w].
        tasks: the tasks to give, in the order of the outputs.
        height: of image and maps, pixels.
        width: of image and maps, pixels.
        refine: edges of maps follow those of the image (`training.guided_filter`).
    """

    def __init__(
        self, network: nn.Module, tasks: Sequence[Task], height: int, width: int, refine: bool = True
    ) -> None:
        super().__init__()
        self.network = network
        self.tasks = tuple(tasks)
        self.size = (height, width)
        self.refine = refine
        confident = {task.name for task in getattr(network, "confident", ())}
        self.confident = tuple(task for task in self.tasks if task.name in confident)
        self.eval().requires_grad_(False)

    @property
    def outputs(self) -> dict[str, Kind]:
        """What `forward` gives, by name, and the kind of map that it is: a confidence is a probability."""
        maps = {task.name: task.kind for task in self.tasks}
        return maps | {task.name + SUFFIX: "probability" for task in self.confident}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """RGB uint8 [B,H,W,3] -> maps by task name; see `training.postprocess.deployment_maps`.

        After them the confidences [B,h,w], by task name and `SUFFIX`, at the size of the predictions.
        """
        pixels = image.movedim(-1, 1)
        predictions = self.network(pixels)
        maps = deployment_maps(predictions.final, self.tasks, self.size, pixels if self.refine else None)
        if not self.confident:
            return maps
        sure = confidence_maps({task.name: predictions.confidence[task.name] for task in self.confident})
        return maps | {name + SUFFIX: values for name, values in sure.items()}

    def example(self, batch: int) -> Tensor:
        """An image of the right shape and type, all black."""
        return torch.zeros(batch, *self.size, 3, dtype=torch.uint8)

    def gmacs(self) -> float:
        """10^9 multiply-accumulates of convolutions, matrix products and attention for one image."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self(self.example(1))
        return float(counter.get_total_flops() / 2e9)
