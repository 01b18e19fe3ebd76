"""Label maps as torchvision tv_tensors that know how they move.

Each class says what marks a missing value, how it is resampled, and what a flip, a rotation or a zoom does to
its values, not only to their places. Torchvision's functionals are connected to the classes at the end.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import TVTensor

from training.data import resample
from training.data.resample import Box, Turn
from training.label_spaces import IGNORE_LABEL
from training.tasks import IGNORE_PROBABILITY, INVALID_DEPTH, Task, entry


class PixelMap(TVTensor):  # type: ignore[misc]  # torchvision is untyped
    """A map [C, H, W] (labels: [H, W]) of one task; ``ignore`` marks pixels without a label."""

    ignore: ClassVar[float]
    dtype_out: ClassVar[torch.dtype] = torch.float16
    channels: ClassVar[tuple[int, ...]] = (1,)
    modes: ClassVar[tuple[str, ...]] = ("L",)
    """Pillow's modes of the files that hold such maps."""

    @classmethod
    def decoded(cls, pixels: Tensor) -> Tensor:
        """The values of such a file's pixels, [H, W] or [H, W, C]: shares of 255, unless overridden."""
        planes = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        return planes.float() / 255

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """``values`` as a map of this kind, without a copy."""
        wrapped: Self = values.as_subclass(cls)
        return wrapped

    @classmethod
    def missing(cls, size: tuple[int, int]) -> Tensor:
        """The plain tensor of a map of ``size`` (H, W) without any label."""
        return torch.full((*cls.channels, *size), cls.ignore, dtype=cls.dtype_out)

    def _values(self) -> Tensor:
        values: Tensor = self.as_subclass(Tensor)
        return values

    def plain(self) -> Tensor:
        """The values as a plain tensor."""
        return self._values()

    def packed(self) -> Tensor:
        """The values as a plain tensor of the small dtype that samples carry."""
        return self._values().to(self.dtype_out)

    def valid(self) -> Tensor:
        """Bool [1, H, W]: pixels that carry a label."""
        return self._values() != self.ignore

    def sampled(self, box: Box, size: tuple[int, int]) -> Self:
        """The region ``box`` stretched to ``size``; the values keep their meaning."""
        values, valid = resample.masked_bilinear(self._values(), self.valid(), box, size)
        return self.of(values.masked_fill_(~valid, self.ignore))

    def zoomed(self, factor: float) -> Self:
        """The values after the camera went ``factor`` times closer."""
        return self

    def without(self, pixels: Tensor) -> Self:
        """The map with its labels at ``pixels`` (bool [H, W]) taken away."""
        return self.of(self._values().masked_fill(pixels, self.ignore))

    def flipped(self) -> Self:
        """The map of the mirror image."""
        return self.of(self._values().flip(-1))

    def turned(self, turn: Turn) -> Self:
        """The map of the rotated image; what comes in from outside is missing."""
        return self.of(turn.nearest(self._values(), self.ignore))

    @classmethod
    def pasted(cls, values: Tensor, donor: Tensor, pixels: Tensor) -> Tensor:
        """Of two packed maps: ``values`` once ``pixels`` (bool [H, W]) of the donor's image cover its own.

        They are missing there, unless overridden: how far off a thing would be, and which way round, is not
        known.
        """
        return values.masked_fill(pixels, cls.ignore)


class LabelMap(PixelMap):
    """Target ids (see `training.label_spaces.targets`), uint8 [H, W]; 255 is missing."""

    ignore = IGNORE_LABEL
    dtype_out = torch.uint8
    channels = ()
    modes = ("L", "P")

    @classmethod
    def decoded(cls, pixels: Tensor) -> Tensor:
        """Class ids."""
        return pixels

    def sampled(self, box: Box, size: tuple[int, int]) -> Self:
        """The region ``box`` at the nearest pixels: class ids have no averages."""
        return self.of(resample.nearest(self._values(), box, size))

    @classmethod
    def pasted(cls, values: Tensor, donor: Tensor, pixels: Tensor) -> Tensor:
        """A thing is what it was."""
        return torch.where(pixels, donor, values)


class SaliencyMap(PixelMap):
    """Probability of the salient object, float32 [1, H, W] in 0..1; -1 is missing."""

    ignore = IGNORE_PROBABILITY
    modes = ("L", "LA")

    @classmethod
    def decoded(cls, pixels: Tensor) -> Tensor:
        """255 p, with an alpha channel that is 0 where there is no label."""
        if pixels.ndim == 2:
            return super().decoded(pixels)
        probability = super().decoded(pixels[..., 0])
        return probability.masked_fill_(pixels[None, ..., 1] == 0, IGNORE_PROBABILITY)

    @classmethod
    def pasted(cls, values: Tensor, donor: Tensor, pixels: Tensor) -> Tensor:
        """What stands out now is not known anywhere."""
        return torch.full_like(values, cls.ignore)


class EdgeMap(SaliencyMap):
    """Whether a pixel lies on an edge, float32 [1, H, W], 0 or 1; -1 is missing."""

    def sampled(self, box: Box, size: tuple[int, int]) -> Self:
        """The region ``box`` at the nearest pixels, as the published readers do: averages are no edges."""
        return self.of(resample.nearest(self._values(), box, size))


class DisparityMap(PixelMap):
    """Inverse depth up to scale and shift, float32 [1, H, W], larger is nearer; 0 is missing.

    A zoom leaves it as it is: its scale means nothing.
    """

    ignore = INVALID_DEPTH


class DepthMap(PixelMap):
    """Distance along the optical axis in metres, float32 [1, H, W]; 0 is missing."""

    ignore = INVALID_DEPTH
    modes = ("I;16",)

    @classmethod
    def decoded(cls, pixels: Tensor) -> Tensor:
        """Millimetres."""
        return pixels[None].float() / 1000

    def zoomed(self, factor: float) -> Self:
        """Metres after a zoom: things that look ``factor`` times larger are that much nearer."""
        return self.of(self._values() / factor)


class NormalsMap(PixelMap):
    """Unit surface normals, float32 [3, H, W], x right, y up, z towards the camera; (0, 0, 0) is missing.

    A zoom leaves them as they are: it stands for a camera that comes closer, not for another lens.
    """

    ignore = 0.0
    channels = (3,)
    modes = ("RGB",)

    @classmethod
    def decoded(cls, pixels: Tensor) -> Tensor:
        """round((n + 1) * 127.5); black is missing."""
        planes = pixels.permute(2, 0, 1).contiguous()
        missing = (planes[0] | planes[1] | planes[2]) == 0
        return unit(planes.float() / 127.5 - 1).masked_fill_(missing, 0.0)

    def valid(self) -> Tensor:
        """Bool [1, H, W]: pixels whose normal is not zero."""
        return (self._values() != 0).any(0, keepdim=True)

    def sampled(self, box: Box, size: tuple[int, int]) -> Self:
        """The region ``box``, bilinearly and back at unit length."""
        kept = resample.nearest(self.valid(), box, size)
        return self.of(unit(resample.bilinear(self._values(), box, size)).mul_(kept))

    def flipped(self) -> Self:
        """The mirror image: places and the x component change sides."""
        values = self._values().flip(-1)
        values[0].neg_()
        return self.of(values)

    def turned(self, turn: Turn) -> Self:
        """The rotated map with each vector turned about the optical axis."""
        x, y, z = turn.nearest(self._values(), self.ignore)
        return self.of(torch.stack((turn.cos * x - turn.sin * y, turn.sin * x + turn.cos * y, z)))


def unit(vectors: Tensor) -> Tensor:
    """``vectors`` [3, ...] at unit length; zero stays zero."""
    return vectors / vectors.square().sum(0, keepdim=True).sqrt_().clamp_min_(1e-6)


MAPS: dict[str, type[PixelMap]] = {
    "labels": LabelMap,
    "depth": DepthMap,
    "normals": NormalsMap,
    "probability": SaliencyMap,
    "edges": EdgeMap,
}
"""Labels of each kind of task, or of a task by name."""


def map_types(tasks: Sequence[Task]) -> dict[str, type[PixelMap]]:
    """The maps of a sample by name, for a network with these tasks.

    One map a task under the task's name; ``depth`` (metres) brings ``disparity`` (relative inverse depth)
    along.
    """
    types = {}
    for task in tasks:
        types[task.name] = entry(MAPS, task)
        if task.kind == "depth":
            types["disparity"] = DisparityMap
    return types


@functional.register_kernel(functional.resize, PixelMap)  # type: ignore[untyped-decorator]
def _resize(values: PixelMap, size: list[int], **_: Any) -> PixelMap:
    height, width = values.shape[-2:]
    if (height, width) == tuple(size):
        return values
    return values.sampled(Box(0, 0, height, width), (size[0], size[1]))


@functional.register_kernel(functional.resized_crop, PixelMap)  # type: ignore[untyped-decorator]
def _resized_crop(
    values: PixelMap, top: float, left: float, height: float, width: float, size: list[int], **_: Any
) -> PixelMap:
    full_height, full_width = values.shape[-2:]
    zoom = math.sqrt(full_height * full_width / (height * width))
    box = Box(top, left, height, width)
    seen = values.sampled(box, (size[0], size[1])).zoomed(zoom)
    beyond = resample.outside(box, (size[0], size[1]), (full_height, full_width))
    return seen if beyond is None else seen.without(beyond)


@functional.register_kernel(functional.horizontal_flip, PixelMap)  # type: ignore[untyped-decorator]
def _horizontal_flip(values: PixelMap) -> PixelMap:
    return values.flipped()
