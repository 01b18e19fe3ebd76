"""The shared Mask2Former backbone and its representation R (Sec. 3.2)."""

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, SwinConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

from training.model.config import BackboneConfig
from training.model.encoders import PixelNorm, build_encoder
from training.model.mask_decoder import MaskDecoder
from training.model.pixel_decoder import PixelDecoder
from training.model.resizing import Resize


def aggregate_masks(pixels: Tensor, masks: Tensor, how: str) -> Tensor:
    """R: the pixel embeddings gated by the sum of all object masks, in fp32.

    The paper writes A = PM summed over N but names a result in N x H x W, which the sum removes; the
    consistent reading is R = P * sum_n M_n in C x H/4 x W/4.

    Args:
        pixels: P, [B, C, h, w].
        masks: M, [B, N, h, w], raw logits.
        how: ``sum_logits`` (the reading above) or ``mean_sigmoid``, P * mean_n sigmoid(M_n).

    Returns:
        [B, C, h, w] in fp32.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        masks = masks.float()
        gate = masks.sum(1, keepdim=True) if how == "sum_logits" else masks.sigmoid().mean(1, keepdim=True)
        return pixels.float() * gate


class Context(nn.Module):
    """The encoder's deepest level at the size of R: what is in the picture, past the pixel decoder.

    What an ImageNet classifier knows reaches the tasks through one linear map, so that classes with a handful
    of labelled images can be learned.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, 1)
        self.norm = nn.GroupNorm(32, channels)
        self.resize = Resize()

    def forward(self, deepest: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, C', H/32, W/32] -> [B, channels, *size], bilinear."""
        context = self.norm(self.project(deepest))
        resized: Tensor = self.resize(context, size)
        return resized


def published(
    config: BackboneConfig, feature_channels: list[int]
) -> tuple[Mask2FormerPixelDecoder, Mask2FormerTransformerModule]:
    """Pixel decoder and transformer of the package transformers, initialised as it does.

    :class:`Backbone` starts with their weights; published checkpoints have their names.
    """
    mask2former = Mask2FormerConfig(
        backbone_config=SwinConfig(out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        encoder_layers=config.encoder_layers,
        encoder_feedforward_dim=config.encoder_feedforward,
        decoder_layers=config.decoder_layers + 1,
        dim_feedforward=config.decoder_feedforward,
        num_attention_heads=config.heads,
        num_queries=config.queries,
    )
    pixel_decoder = Mask2FormerPixelDecoder(mask2former, feature_channels=feature_channels)
    transformer = Mask2FormerTransformerModule(in_features=config.channels, config=mask2former)
    initialise = Mask2FormerPreTrainedModel(mask2former)._init_weights
    for part in (pixel_decoder, transformer):
        part.apply(initialise)
    return pixel_decoder, transformer


class Backbone(nn.Module):
    """Mask2Former without its class head: RGB -> R, [B, channels, H/4, W/4]."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.normalise = PixelNorm(config.pixel_mean, config.pixel_std)
        self.encoder = build_encoder(config)
        self.pixel_decoder = PixelDecoder(
            self.encoder.channels,
            config.channels,
            layers=config.encoder_layers,
            heads=config.heads,
            hidden=config.encoder_feedforward,
        )
        self.transformer = MaskDecoder(
            config.channels,
            config.queries,
            layers=config.decoder_layers,
            heads=config.heads,
            hidden=config.decoder_feedforward,
        )
        for ours, theirs in zip(
            (self.pixel_decoder, self.transformer), published(config, self.encoder.channels), strict=True
        ):
            ours.load_state_dict(theirs.state_dict(), assign=True)
        self.aggregation = config.mask_aggregation
        deepest = self.encoder.channels[-1]
        self.context = Context(deepest, config.context_channels) if config.context_channels else None
        self.channels = config.channels + config.context_channels

    def forward(self, images: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in 0..255 -> R [B, channels, H/4, W/4]."""
        features = self.encoder(self.normalise(images))
        pyramid = self.pixel_decoder(features)
        shared = aggregate_masks(pyramid.pixels, self.transformer(pyramid), self.aggregation)
        if self.context is None:
            return shared
        height, width = shared.shape[-2:]
        return torch.cat([shared, self.context(features[-1], (height, width)).to(shared.dtype)], 1)
