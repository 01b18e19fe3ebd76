"""Image encoders behind the pixel decoder: Swin from transformers, anything else from timm."""

from collections.abc import Iterator

import timm
import torch
from torch import Tensor, nn
from transformers import SwinConfig
from transformers.models.swin.modeling_swin import SwinBackbone

from training.model.config import BackboneConfig


class SwinEncoder(nn.Module):
    """Swin-S (embedding 96, depths 2, 2, 18, 2, window 7) as in the paper's Mask2Former.

    The backbone lives in ``self.encoder`` with the names of the published Mask2Former checkpoints.
    """

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        config = SwinConfig(
            embed_dim=96,
            depths=[2, 2, 18, 2],
            num_heads=[3, 6, 12, 24],
            window_size=7,
            drop_path_rate=drop_path,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        config._attn_implementation = "eager"  # the SDPA path does not export with a dynamic batch
        self.encoder = SwinBackbone(config)
        self.channels: list[int] = list(self.encoder.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> four maps at strides 4, 8, 16, 32."""
        return list(self.encoder(images).feature_maps)


class TimmEncoder(nn.Module):
    """The last four feature levels (strides 4 to 32) of a timm model.

    Raises:
        ValueError: the model has no four levels at strides 4, 8, 16, 32.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.encoder = timm.create_model(
            config.encoder, pretrained=False, num_classes=0, global_pool="", drop_path_rate=config.drop_path
        )
        levels = [(info["reduction"], info["num_chs"], index) for index, info in enumerate(self._levels())]
        if [stride for stride, _, _ in levels[-4:]] != [4, 8, 16, 32]:
            strides = [stride for stride, _, _ in levels]
            raise ValueError(f"encoder {config.encoder!r} has strides {strides}; 4, 8, 16, 32 are needed")
        self._indices = [index for _, _, index in levels[-4:]]
        self._classifier_features = config.classifier_features
        self.channels = [count for _, count, _ in levels[-4:]]
        if config.classifier_features:
            self.channels[-1] = self.encoder.num_features
        else:
            self.encoder.prune_intermediate_layers(self._indices, prune_norm=True)
        self._freeze_norm = config.freeze_norm
        for parameter in self._frozen_parameters(config.freeze_stages):
            parameter.requires_grad_(False)

    def _levels(self) -> list[dict[str, int]]:
        return list(self.encoder.feature_info)

    def _norms(self) -> Iterator[nn.Module]:
        for module in self.encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                yield module

    def _frozen_parameters(self, stages: int) -> Iterator[nn.Parameter]:
        if self._freeze_norm:
            for norm in self._norms():
                yield from norm.parameters()
        if stages == 0:
            return
        for name, child in self.encoder.named_children():
            if name in ("blocks", "stages"):
                for stage in list(child.children())[:stages]:
                    yield from stage.parameters()
            elif name in ("conv_stem", "bn1", "stem"):
                yield from child.parameters()

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Switch modes; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self._freeze_norm:
            for norm in self._norms():
                norm.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> four maps at strides 4, 8, 16, 32."""
        if not self._classifier_features:
            features = self.encoder.forward_intermediates(
                images, indices=self._indices, intermediates_only=True
            )
            return list(features)
        last, features = self.encoder.forward_intermediates(images, indices=self._indices)
        return [*features[:-1], last]


def build_encoder(config: BackboneConfig) -> SwinEncoder | TimmEncoder:
    """The encoder named by ``config.encoder``, randomly initialised."""
    if config.encoder == "swin_small":
        return SwinEncoder(config.drop_path)
    if not timm.is_model(config.encoder):
        raise ValueError(f"unknown encoder {config.encoder!r}: swin_small or a name of timm.list_models()")
    return TimmEncoder(config)


class PixelNorm(nn.Module):
    """RGB in 0..255, any dtype -> normalised float by the encoder's mean and deviation (given for 0..1)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H, W] float."""
        return (images.to(self.mean.dtype) - self.mean) / self.std
