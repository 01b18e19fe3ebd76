"""Label files of the partial-label folder: bytes on disk to maps, with every deviation an error."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image, read_file

from training.data.errors import LabelError
from training.data.maps import DepthMap, DisparityMap, LabelMap, NormalsMap, PixelMap, SaliencyMap
from training.tasks import IGNORE_LABEL

_MODES = {
    LabelMap: ("L", "P"),
    SaliencyMap: ("L",),
    DisparityMap: ("L",),
    DepthMap: ("I;16",),
    NormalsMap: ("RGB",),
}
_MODE_WORDS = {
    "1": "1-bit",
    "L": "8-bit grey",
    "P": "8-bit palette",
    "I;16": "16-bit grey",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGBA",
    "LA": "8-bit grey with alpha",
}

_SOURCE_LINE = re.compile(r"^.*\.cpp:\d+, ")
"""What torchvision puts before its own words."""


def read_photo(path: Path) -> Tensor:
    """The photo at ``path`` as a uint8 RGB ``tv_tensors.Image`` [3, H, W].

    Raises:
        LabelError: the file cannot be decoded.
    """
    try:
        pixels = decode_image(read_file(str(path)), ImageReadMode.RGB)
    except RuntimeError as error:
        raise LabelError(path, f"not a readable image ({_SOURCE_LINE.sub('', str(error))})") from error
    if pixels.dtype != torch.uint8:
        raise LabelError(path, "has more than 8 bits a channel, a photo must have 8")
    photo: Tensor = tv_tensors.Image(pixels)
    return photo


def _read_pixels(path: Path, kind: type[PixelMap]) -> NDArray[np.integer]:
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LabelError(path, f"not a readable image ({error})") from error
    modes = _MODES[kind]
    if mode not in modes:
        wanted = " or ".join(_MODE_WORDS[name] for name in modes)
        raise LabelError(path, f"is {_MODE_WORDS.get(mode, mode)}, a {kind.__name__} file must be {wanted}")
    return pixels


@dataclass(frozen=True)
class LabelFile:
    """One label file: where it is, what it holds and, for class ids, how many classes there are."""

    path: Path
    kind: type[PixelMap]
    classes: int | None = None

    def read(self) -> PixelMap:
        """The map at the file's own resolution.

        Raises:
            LabelError: the file cannot be decoded, has the wrong mode or bit depth, or holds a class id that
                its label space does not have.
        """
        pixels = _read_pixels(self.path, self.kind)
        if self.classes is not None:
            self._check_ids(pixels, self.classes)
        return self.kind.of(_DECODERS[self.kind](torch.from_numpy(pixels)))

    def _check_ids(self, ids: NDArray[np.integer], classes: int) -> None:
        wrong = (ids >= classes) & (ids != IGNORE_LABEL)
        if wrong.any():
            worst = ", ".join(str(value) for value in np.unique(ids[wrong])[:5])
            raise LabelError(
                self.path,
                f"class ids {worst}: its label space has 0..{classes - 1} and 255 (ignore)",
            )


def _labels(pixels: Tensor) -> Tensor:
    return pixels


def _share(pixels: Tensor) -> Tensor:
    return pixels[None].float() / 255


def _metres(pixels: Tensor) -> Tensor:
    return pixels[None].float() / 1000


def _vectors(pixels: Tensor) -> Tensor:
    planes = pixels.permute(2, 0, 1).contiguous()
    missing = (planes[0] | planes[1] | planes[2]) == 0
    return (planes.float() / 127.5 - 1).masked_fill_(missing, 0.0)


_DECODERS: dict[type[PixelMap], Callable[[Tensor], Tensor]] = {
    LabelMap: _labels,
    SaliencyMap: _share,
    DisparityMap: _share,
    DepthMap: _metres,
    NormalsMap: _vectors,
}
