"""Mask2Former's pixel decoder: multi-scale deformable attention, then one level of a feature pyramid.

The same mathematics and the same names of parameters as in transformers, for images without padding: what
follows from the sizes alone is constant, and nothing is made on the host in the forward pass.
"""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.exporting import exporting
from training.model.positions import Centres, LevelIndex, PixelSteps, SineEmbedding, Size, areas, flat
from training.model.resizing import Resize

LEVELS = 3
"""At strides 32, 16 and 8; also how many the masked attention goes through in turn."""
POINTS = 4
"""Samples of a position in each level by each head."""


class Pyramid(NamedTuple):
    """What the decoder gives.

    ``tokens`` [B, L, C] are the positions of the levels in ``sizes``, coarsest first, and ``pixels`` the
    pixel embeddings P [B, C, H/4, W/4].
    """

    tokens: Tensor
    sizes: list[Size]
    pixels: Tensor


def weighted_sum(sampled: list[Tensor], weights: Tensor) -> Tensor:
    """Samples of each level, [N, C, `POINTS`, L], times weights [N, 1, all points, L] -> [N, C, L].

    In an exported graph level by level: to put them together takes a CPU as long as to multiply them.
    """
    if not exporting():
        return (torch.cat(sampled, 2) * weights).sum(2)
    parts = torch.split(weights, POINTS, 2)
    summed = [(values * part).sum(2) for values, part in zip(sampled, parts, strict=True)]
    return reduce(torch.add, summed)


class DeformableAttention(nn.Module):
    """Each position samples a few learned places of all levels (Zhu et al. 2021)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.sampling_offsets = nn.Linear(channels, heads * LEVELS * POINTS * 2)
        self.attention_weights = nn.Linear(channels, heads * LEVELS * POINTS)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.centres = Centres()
        self.steps = PixelSteps()

    def forward(self, tokens: Tensor, positions: Tensor, sizes: list[Size]) -> Tensor:
        """Tokens [B, L, C] and their embeddings [L, C] -> [B, L, C]."""
        batch, length, channels = tokens.shape
        queries = tokens + positions
        samples = self.heads * LEVELS * POINTS
        centres = self.centres(samples, *flat(sizes), like=positions)
        steps = self.steps(self.heads, POINTS, *flat(sizes), like=positions)
        grids = torch.addcmul(centres, self.sampling_offsets(queries), steps)
        grids = grids.view(batch, length, self.heads, LEVELS, POINTS, 2).permute(3, 0, 2, 4, 1, 5)
        grids = grids.reshape(LEVELS, batch * self.heads, POINTS, length, 2)
        values = self.value_proj(tokens).view(batch, length, self.heads, -1).permute(0, 2, 3, 1)
        values = values.reshape(batch * self.heads, -1, length)
        levels = zip(torch.split(values, areas(sizes), 2), sizes, grids.unbind(0), strict=True)
        sampled = [
            functional.grid_sample(value.view(*value.shape[:2], *size), grid, align_corners=False)
            for value, size, grid in levels
        ]
        weights = self.attention_weights(queries).view(batch, length, self.heads, -1).softmax(-1)
        weights = weights.permute(0, 2, 3, 1).reshape(batch * self.heads, 1, LEVELS * POINTS, length)
        summed = weighted_sum(sampled, weights).view(batch, channels, length)
        attended: Tensor = self.output_proj(summed.transpose(1, 2))
        return attended


def normalised(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    """``norm`` of tokens [B, L, C]; in an exported graph with one more axis.

    ONNX Runtime makes one operator of a sum and the norm of three axes, which takes a CPU five times as long.
    """
    normal: Tensor = norm(tokens.unsqueeze(0)).squeeze(0) if exporting() else norm(tokens)
    return normal


class Layer(nn.Module):
    """Deformable attention and a perceptron, each added and normalised."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(channels, heads)
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.final_layer_norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, positions: Tensor, sizes: list[Size]) -> Tensor:
        """Tokens [B, L, C] and their embeddings [L, C] -> [B, L, C]."""
        tokens = normalised(self.self_attn_layer_norm, tokens + self.self_attn(tokens, positions, sizes))
        hidden = self.fc1(tokens).relu()
        return normalised(self.final_layer_norm, tokens + self.fc2(hidden))


class PixelDecoder(nn.Module):
    """Four feature maps at strides 4 to 32 -> tokens of the three coarse ones and pixel embeddings."""

    def __init__(self, in_channels: list[int], channels: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(LEVELS, channels))
        self.input_projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, channels, 1), nn.GroupNorm(32, channels))
            for count in in_channels[: -LEVELS - 1 : -1]
        )
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Layer(channels, heads, hidden) for _ in range(layers))}
        )
        self.adapter_1 = nn.Sequential(
            nn.Conv2d(in_channels[0], channels, 1, bias=False), nn.GroupNorm(32, channels)
        )
        self.layer_1 = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(32, channels), nn.ReLU()
        )
        self.mask_projection = nn.Conv2d(channels, channels, 1)
        self.embedding = SineEmbedding(channels)
        self.level = LevelIndex()
        self.resize = Resize()

    def forward(self, features: list[Tensor]) -> Pyramid:
        """Feature maps, finest first."""
        maps = [
            project(feature) for project, feature in zip(self.input_projections, features[:0:-1], strict=True)
        ]
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        tokens = torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)
        embedding = self.embedding(*flat(sizes), like=self.level_embed)
        positions = embedding + self.level_embed.index_select(0, self.level(*flat(sizes), like=embedding))
        for layer in self.encoder["layers"].children():
            tokens = layer(tokens, positions, sizes)
        finest = tokens[:, -areas(sizes)[-1] :].transpose(1, 2).view(tokens.shape[0], -1, *sizes[-1])
        lateral = self.adapter_1(features[0])
        above = self.resize(finest, (lateral.shape[-2], lateral.shape[-1]))
        return Pyramid(tokens, sizes, self.mask_projection(self.layer_1(lateral + above)))
