"""Maps that do not flicker: a mean over time where the picture stands still, the new map where it moves.

A network that sees one frame at a time answers noise with noise. Where a pixel looks as it did, its value is
an exponential mean of the past; where it looks different, something moved, and the mean would smear it. Of
classes there is no mean: a pixel keeps its own until most of the frames say another. A cut to another scene
starts anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import DepthTask, LabelsTask, NormalsTask

USUAL_STRENGTH: Final = 0.8
"""Share of the past in a value where nothing moves."""
_STILL, _MOVED = 6.0, 20.0  # differences of grey, of 255, that count as none and as motion
_BLUR: Final = 2  # radius, pixels: single pixels differ by the noise of the camera
_AROUND: Final = 9  # width, pixels, of what moves along with a moved pixel: a network looks around it
_CUT: Final = 0.5  # share of moved pixels that is another scene
_DOUBTED: Final = 0.3  # agreement below which a pixel gives its class up; with half it would flicker


@dataclass
class _Past:
    grey: NDArray[np.float32]
    maps: dict[str, NDArray[np.float32]]
    labels: dict[str, tuple[NDArray[np.uint8], NDArray[np.float32]]]
    """Classes, and how far the frames have agreed with each: a mean of ones and zeros."""


class Smoother:
    """Smooths the predictions for the frames of one video, given in their order.

    Raises:
        ValueError: ``strength`` is not from 0 (leave it as it is) to below 1.
    """

    def __init__(self, strength: float = USUAL_STRENGTH) -> None:
        if not 0 <= strength < 1:
            raise ValueError(f"the strength is {strength}, it must be from 0 to below 1")
        self.strength = strength
        self._past: dict[str, _Past] = {}

    def __call__(self, found: DenseMaps, pixels: Mapping[tuple[int, int], NDArray[np.uint8]]) -> DenseMaps:
        """``found``, its maps smoothed; ``pixels`` has the frame at the input size of every model."""
        shares = {
            manifest.name: self._share(manifest.name, pixels[manifest.input.height, manifest.input.width])
            for manifest in found.models
        }
        return replace(found, maps=tuple(self._smooth(dense, shares[dense.model]) for dense in found.maps))

    def _share(self, model: str, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How much of the new value each pixel of ``model``'s maps takes, from ``1 - strength`` to 1."""
        grey = np.asarray(Image.fromarray(frame).convert("L").filter(ImageFilter.BoxBlur(_BLUR)), np.float32)
        past = self._past.get(model)
        moved = np.ones_like(grey)
        if past is not None:
            change = ((np.abs(grey - past.grey) - _STILL) / (_MOVED - _STILL)).clip(0, 1)
            spots = Image.fromarray(np.rint(change * 255).astype(np.uint8))
            moved = np.asarray(spots.filter(ImageFilter.MaxFilter(_AROUND)), np.float32) / np.float32(255)
        if past is None or moved.mean() > _CUT:
            self._past[model] = _Past(grey, {}, {})
            return np.ones_like(grey)
        share = 1 - np.float32(self.strength) * (1 - moved)
        past.grey = past.grey + share * (grey - past.grey)
        return share

    def _smooth(self, dense: DenseMap, share: NDArray[np.float32]) -> DenseMap:
        if isinstance(dense.task, LabelsTask):
            return replace(dense, raw=self._keep(dense, share))
        maps = self._past[dense.model].maps
        new = dense.raw.astype(np.float32, copy=False)
        before = maps.get(dense.task.name)
        if before is not None:
            weight = share[..., None] if new.ndim == 3 else share
            mixed = before + weight * (new - before)
            if isinstance(dense.task, NormalsTask):
                length = np.linalg.norm(mixed, axis=-1, keepdims=True)
                mixed = np.where(length > 0.5, mixed / np.maximum(length, 1e-6), new)
            if isinstance(dense.task, DepthTask):
                mixed = np.where((new > 0) & (before > 0), mixed, new)
            new = mixed.astype(np.float32, copy=False)
        maps[dense.task.name] = new
        return replace(dense, raw=new)

    def _keep(self, dense: DenseMap, share: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The classes of a map, those of the past where they are not in doubt."""
        known = self._past[dense.model].labels
        new = dense.raw.astype(np.uint8, copy=False)
        shown, agreed = known.get(dense.task.name, (new, np.ones_like(share)))
        agreed = agreed + share * ((new == shown) - agreed)
        doubted = agreed < _DOUBTED
        shown = np.where(doubted, new, shown)
        agreed = np.where(doubted, 1 - agreed, agreed)
        known[dense.task.name] = shown, agreed
        return shown
