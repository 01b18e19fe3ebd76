"""Photometric augmentation as one matrix product per image.

Brightness, contrast, saturation and hue are all affine in RGB, so their product is one 3x4 matrix: about
twenty times cheaper than four passes with a conversion to HSV.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from training.data.config import AugmentConfig

_LUMA = torch.tensor([0.299, 0.587, 0.114])


class ColorJitter(v2.Transform):  # type: ignore[misc]  # torchvision is untyped
    """Random brightness, contrast, saturation and hue of uint8 images; maps pass through untouched."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, augment: AugmentConfig) -> None:
        super().__init__()
        self.augment = augment

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the four factors."""
        del flat_inputs
        brightness, contrast, saturation, hue, grey = torch.rand(5).tolist()
        strengths = self.augment
        return {
            "brightness": 1 + (2 * brightness - 1) * strengths.brightness,
            "contrast": 1 + (2 * contrast - 1) * strengths.contrast,
            "saturation": 0.0 if grey < strengths.grey else 1 + (2 * saturation - 1) * strengths.saturation,
            "hue": (2 * hue - 1) * strengths.hue,
        }

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """The image [3, H, W], uint8, with its colours changed."""
        pixels = inpt.as_subclass(Tensor).flatten(1).float()
        mixing = params["brightness"] * color_matrix(params["contrast"] * params["saturation"], params["hue"])
        # Contrast scales the luma's distance from its mean; the matrix has scaled chroma by both factors.
        mean = pixels.mean(1) @ _LUMA
        luma_gain = params["brightness"] * params["contrast"]
        mixing = mixing + (luma_gain - params["brightness"]) * _LUMA.expand(3, 3)
        offset = (params["brightness"] - luma_gain) * mean
        changed = (mixing @ pixels).add_(offset + 0.5).clamp_(0, 255).to(torch.uint8)
        image: Tensor = tv_tensors.wrap(changed.view(inpt.shape), like=inpt)
        return image


def color_matrix(chroma: float, turn: float) -> Tensor:
    """[3, 3] matrix on RGB that keeps luma, scales chroma and turns it by ``turn`` full circles."""
    angle = 2 * math.pi * turn
    # Hue turns about the grey axis (Rodrigues' formula), after luma has been taken out.
    axis = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -axis, axis], [axis, 0.0, -axis], [-axis, axis, 0.0]])
    rotation = torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    to_luma = _LUMA.expand(3, 3)
    keep = torch.eye(3) - to_luma
    return to_luma + chroma * (keep @ rotation @ keep)
