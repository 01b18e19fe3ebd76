"""How crisp maps are: edges of label, depth and saliency maps against those of the labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 3
"""Pixels along rows and columns within which two edges are the same."""
BAND = 5
"""Pixels from an edge within which a saliency map is judged as near it."""
STEP = 1.15
"""Ratio of the farthest to the nearest depth of a `WINDOW` from which there is an edge."""
WINDOW = 5
"""Side, pixels, of the neighbourhood in which depth changes at an edge."""


def near(mask: Tensor, distance: int) -> Tensor:
    """Bool [B,H,W]: pixels at most ``distance`` rows and columns from one of ``mask`` [B,H,W]."""
    side = 2 * distance + 1
    return F.max_pool2d(mask[:, None].float(), side, 1, distance)[:, 0] > 0


def label_edges(ids: Tensor, valid: Tensor) -> Tensor:
    """Bool [B,H,W]: pixels whose right or lower neighbour has another class, both valid ([B,H,W])."""
    edges = torch.zeros_like(valid)
    edges[:, :, :-1] |= (ids[:, :, :-1] != ids[:, :, 1:]) & valid[:, :, :-1] & valid[:, :, 1:]
    edges[:, :-1] |= (ids[:, :-1] != ids[:, 1:]) & valid[:, :-1] & valid[:, 1:]
    return edges


def depth_edges(depth: Tensor, valid: Tensor) -> Tensor:
    """Bool [B,H,W]: pixels around which depth [B,H,W] (metres) changes by `STEP`, all of it valid."""
    log = depth.clamp_min(1e-3).log()[:, None]
    pad = WINDOW // 2
    most, least = F.max_pool2d(log, WINDOW, 1, pad), -F.max_pool2d(-log, WINDOW, 1, pad)
    return ((most - least)[:, 0] > torch.log(torch.tensor(STEP)).to(log)) & ~near(~valid, pad)


def edge_counts(found: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Matched and all edge pixels of the map, then of the label: float64 [4], to be summed over a split.

    Edges of the map count where everything within `TOLERANCE` has a label.

    Args:
        found: edges of the map, bool [B,H,W].
        truth: edges of the label, bool [B,H,W].
        valid: where there is a label, bool [B,H,W].
    """
    found = found & ~near(~valid, TOLERANCE)
    hits = found & near(truth, TOLERANCE)
    caught = truth & near(found, TOLERANCE) & ~near(~valid, TOLERANCE)
    asked = truth & ~near(~valid, TOLERANCE)
    return torch.stack([hits.sum(), found.sum(), caught.sum(), asked.sum()]).double()


def edge_f(counts: Tensor) -> float | None:
    """The F-measure of pooled `edge_counts`; None where the labels have no edge."""
    hits, found, caught, asked = counts.tolist()
    if not asked:
        return None
    precision, recall = hits / max(1, found), caught / asked
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
