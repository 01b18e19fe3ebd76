"""Mask2Former's transformer decoder with masked attention: the logits of N object masks.

The same mathematics and the same names of parameters as in transformers, but for what its class head would
read. A mask is a product with the pixel embeddings, and resizing is linear, so that the attention masks are
products with the embeddings at the levels' sizes, resized once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.bilinear import resized
from training.model.exporting import exporting
from training.model.pixel_decoder import LEVELS, Pyramid
from training.model.positions import LevelIndex, SineEmbedding, areas, flat


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, heads: int, allowed: Tensor | None = None
) -> Tensor:
    """Attention with ``heads`` of [B, Q, C] to [B, L, C].

    ``allowed`` [B, 1, Q, L] says which may be seen, at least one for each query. An exported graph has plain
    operators, without the care for queries that see nothing and without arithmetic of shapes.
    """
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (queries, keys, values))
    if exporting():
        logits: Tensor = q.shape[-1] ** -0.5 * q @ k.transpose(-1, -2)
        if allowed is not None:
            logits = torch.where(allowed, logits, -torch.inf)
        attended = logits.softmax(-1) @ v
    else:
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return attended.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Of the queries; their embeddings are added for the affinity alone."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """[B, Q, C] and [Q, C] -> [B, Q, C]."""
        placed = x + embedding
        attended: Tensor = self.out_proj(
            attend(self.q_proj(placed), self.k_proj(placed), self.v_proj(x), self.heads)
        )
        return attended


class CrossAttention(nn.Module):
    """Of the queries to the positions of a level; parameters as in `torch.nn.MultiheadAttention`."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * channels))
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor) -> Tensor:
        """[B, Q, C], twice [B, L, C] and [B, Q, L] -> [B, Q, C]."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, weight, bias)
            for x, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
        )
        attended: Tensor = self.out_proj(attend(q, k, v, self.heads, allowed.unsqueeze(1)))
        return attended


class Layer(nn.Module):
    """Masked attention, self-attention and a perceptron, each added and normalised."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(channels, heads)
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.cross_attn = CrossAttention(channels, heads)
        self.cross_attn_layer_norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.final_layer_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, embedding: Tensor, keys: Tensor, values: Tensor, allowed: Tensor) -> Tensor:
        """Queries [B, Q, C], their embedding [Q, C], a level's keys and values [B, L, C] -> [B, Q, C]."""
        x = self.cross_attn_layer_norm(x + self.cross_attn(x + embedding, keys, values, allowed))
        x = self.self_attn_layer_norm(x + self.self_attn(x, embedding))
        normalised: Tensor = self.final_layer_norm(x + self.fc2(self.fc1(x).relu()))
        return normalised


class MaskPredictor(nn.Module):
    """Queries -> vectors whose product with a pixel embedding is the logit of a mask there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask_embedder = nn.Sequential(
            *(nn.Sequential(nn.Linear(channels, channels), nn.ReLU()) for _ in range(2)),
            nn.Sequential(nn.Linear(channels, channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, Q, C] -> [B, Q, C]."""
        embedded: Tensor = self.mask_embedder(x)
        return embedded


class Decoder(nn.Module):
    """The layers, each over the next level in turn and within the masks predicted before it."""

    def __init__(self, channels: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(channels, heads, hidden) for _ in range(layers))
        self.layernorm = nn.LayerNorm(channels)
        self.mask_predictor = MaskPredictor(channels)

    @torch.no_grad()
    def _allowed(self, masks: Tensor, pixels: Tensor) -> Tensor:
        """[B, Q, C] and a level's pixel embeddings [B, C, L] -> bool [B, Q, L]: inside of the query's mask.

        A query whose mask is empty sees all.
        """
        logits = masks @ pixels
        return (logits >= 0) | (logits.amax(-1, keepdim=True) < 0)

    def forward(self, x: Tensor, embedding: Tensor, keys: Tensor, values: Tensor, pyramid: Pyramid) -> Tensor:
        """Queries [B, Q, C], keys and values [B, L, C] of all levels -> mask embeddings [B, Q, C]."""
        with torch.no_grad():
            pixels = [resized(pyramid.pixels, size).flatten(2) for size in pyramid.sizes[: len(self.layers)]]
        of_level = [torch.split(x, areas(pyramid.sizes), 1) for x in (keys, values)]
        masks: Tensor = self.mask_predictor(self.layernorm(x))
        for index, layer in enumerate(self.layers):
            level = index % LEVELS
            allowed = self._allowed(masks, pixels[level])
            x = layer(x, embedding, of_level[0][level], of_level[1][level], allowed)
            masks = self.mask_predictor(self.layernorm(x))
        return masks


class MaskDecoder(nn.Module):
    """A pyramid -> N object masks, [B, N, H/4, W/4], raw logits."""

    def __init__(self, channels: int, queries: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.queries_embedder = nn.Embedding(queries, channels)
        self.queries_features = nn.Embedding(queries, channels)
        self.decoder = Decoder(channels, layers, heads, hidden)
        self.level_embed = nn.Embedding(LEVELS, channels)
        self.embedding = SineEmbedding(channels)
        self.level = LevelIndex()

    def forward(self, pyramid: Pyramid) -> Tensor:
        """See the class."""
        sides = flat(pyramid.sizes)
        level = self.level(*sides, like=self.level_embed.weight)
        values = pyramid.tokens + self.level_embed(level)
        keys = values + self.embedding(*sides, like=self.level_embed.weight)
        queries = self.queries_features.weight.expand(values.shape[0], -1, -1)
        masks = self.decoder(queries, self.queries_embedder.weight, keys, values, pyramid)
        height, width = pyramid.pixels.shape[-2:]
        return torch.bmm(masks, pyramid.pixels.flatten(2)).view(masks.shape[0], -1, height, width)
