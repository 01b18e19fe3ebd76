"""Depth as geometry: how far the normals of the depth map are from the labels and from the normals map."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from training.geometry import degrees_between, normals_of_depth


class GeometryMetric(Metric):  # type: ignore[misc]
    """Mean angles in degrees over all pixels of known normal, pooled over the split.

    - ``mErr/depth``: between the normals of the depth map and the label.
    - ``disagreement``: between the normals of the depth map and the normals map.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), "sum")

    def update(self, depth: Tensor, normals: Tensor, target: Tensor, focal: Tensor) -> None:
        """Add depth [B,H,W] in metres, normals [B,H,W,3], labels [B,3,H,W] and focal lengths [B,2]."""
        surface = normals_of_depth(depth[:, None].double(), focal.double())
        target = target.double()
        valid = (target != 0).any(dim=1)
        to_label = degrees_between(surface, F.normalize(target, dim=1), 1)
        to_map = degrees_between(surface, normals.movedim(-1, 1).double(), 1)
        self.sums += torch.stack([valid.sum(), (to_label * valid).sum(), (to_map * valid).sum()])

    def compute(self) -> dict[str, float]:
        """The metrics of the pixels seen so far."""
        pixels, to_label, to_map = self.sums.tolist()
        return {"mErr/depth": to_label / pixels, "disagreement": to_map / pixels} if pixels else {}
