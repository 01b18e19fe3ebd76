"""Label files of the partial-label folder: bytes on disk to maps, with every deviation an error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from training.data.errors import LabelError
from training.data.maps import DepthMap, DisparityMap, LabelMap, NormalsMap, PixelMap, SaliencyMap, unit
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


def read_photo(path: Path, enough: tuple[int, int]) -> Tensor:
    """The photo at ``path`` as a uint8 RGB ``tv_tensors.Image`` [3, H, W].

    Args:
        path: the file.
        enough: (H, W) from which more pixels bring nothing: a JPEG with at least twice as many a side is
            decoded at 1/2, 1/4 or 1/8, which saves most of the time for photos straight from a camera.

    Raises:
        LabelError: the file cannot be decoded.
    """
    with _readable(path) as image:
        image.draft("RGB", (enough[1], enough[0]))
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    photo: Tensor = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    return photo


@contextmanager
def _readable(path: Path) -> Iterator[Image.Image]:
    """The opened image; whatever goes wrong with its bytes is a :class:`LabelError`."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LabelError(path, f"not a readable image ({error})") from error


def _read_pixels(path: Path, kind: type[PixelMap]) -> NDArray[np.integer]:
    with _readable(path) as image:
        mode, pixels = image.mode, np.array(image)
    modes = _MODES[kind]
    if mode not in modes:
        wanted = " or ".join(_MODE_WORDS[name] for name in modes)
        raise LabelError(path, f"is {_MODE_WORDS.get(mode, mode)}, a {kind.__name__} file must be {wanted}")
    return pixels


@dataclass(frozen=True, eq=False)
class LabelFile:
    """One label file: where it is, what it holds and, for class ids, how many classes there are."""

    path: Path
    kind: type[PixelMap]
    classes: int | None = None
    table: Tensor | None = None
    """The network's class id for each id in the file."""

    def read(self) -> PixelMap:
        """The map at the file's own resolution.

        Raises:
            LabelError: the file cannot be decoded, has the wrong mode or bit depth, or holds a class id that
                its label space does not have.
        """
        pixels = _read_pixels(self.path, self.kind)
        if self.classes is not None:
            self._check_ids(pixels, self.classes)
        values = torch.from_numpy(pixels)
        if self.table is not None:
            values = self.table[values.long()]
        return self.kind.of(_DECODERS[self.kind](values))

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
    return unit(planes.float() / 127.5 - 1).masked_fill_(missing, 0.0)


_DECODERS: dict[type[PixelMap], Callable[[Tensor], Tensor]] = {
    LabelMap: _labels,
    SaliencyMap: _share,
    DisparityMap: _share,
    DepthMap: _metres,
    NormalsMap: _vectors,
}
