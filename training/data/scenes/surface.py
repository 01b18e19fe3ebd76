"""Colours of things: solid textures, functions of the place in the world."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from training.data.scenes.camera import Array

Pattern = Literal["plain", "checker", "stripes", "waves"]
PATTERNS: tuple[Pattern, ...] = ("plain", "checker", "stripes", "waves")

_WAVES = 3


@dataclass(frozen=True)
class Surface:
    """A matt surface.

    Args:
        colors: two linear RGB colours [2, 3], 0..1; ``plain`` has only the first.
        pattern: how they are mixed.
        period: length of the pattern in metres.
        waves: wave vectors [K, 3] in radians a metre and ``phases`` [K]: one for ``stripes``, several for
            ``waves``; ``checker`` takes its offset from three of the phases.
        phases: see ``waves``.
    """

    colors: Array
    pattern: Pattern = "plain"
    period: float = 0.5
    waves: Array = field(default_factory=lambda: np.zeros((_WAVES, 3), np.float32))
    phases: Array = field(default_factory=lambda: np.zeros(3, np.float32))

    def at(self, points: Array) -> Array:
        """Linear RGB [3, N] at ``points`` [3, N]."""
        first, second = self.colors[0][:, None], self.colors[1][:, None]
        if self.pattern == "plain":
            return np.broadcast_to(first, points.shape)
        if self.pattern == "checker":
            cells = np.floor(points / self.period + self.phases[:, None]).sum(0)
            share = (cells % 2 == 0).astype(np.float32)[None]
        elif self.pattern == "stripes":
            share = (np.sin(self.waves[:1] @ points + self.phases[:1, None]) > 0).astype(np.float32)
        else:
            share = 0.5 + np.sin(self.waves @ points + self.phases[:, None]).mean(0, keepdims=True) / 2
        mixed: Array = first + share * (second - first)
        return mixed


def random_color(rng: np.random.Generator, low: float = 0.05, high: float = 0.9) -> Array:
    """A linear RGB colour [3] between grey and fully saturated."""
    value, saturation, hue = rng.uniform(low, high), rng.uniform(0, 0.8), rng.uniform(0, 2 * math.pi)
    tint = 0.5 + 0.5 * np.cos(hue + np.array([0, 2, 4]) * math.pi / 3)
    return np.asarray(value * (1 - saturation * (1 - tint)), np.float32)


def random_surface(
    rng: np.random.Generator, color: Array | None = None, period: tuple[float, float] = (0.05, 0.6)
) -> Surface:
    """A surface of ``color`` (None: any) with a random pattern in that colour and mostly a shade of it."""
    first = random_color(rng) if color is None else color
    second = random_color(rng) if rng.random() < 0.3 else first * np.float32(rng.uniform(0.5, 1.3))
    length = float(rng.uniform(*period))
    directions = rng.normal(size=(_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = length * rng.uniform(0.5, 2.0, size=(_WAVES, 1))
    return Surface(
        np.stack((first, second.clip(0, 1))).astype(np.float32),
        rng.choice(PATTERNS, p=(0.4, 0.15, 0.2, 0.25)),
        length,
        (2 * math.pi * directions / lengths).astype(np.float32),
        rng.uniform(0, 2 * math.pi, size=_WAVES).astype(np.float32),
    )
