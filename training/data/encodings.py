"""Label files of the partial-label folder: bytes on disk to maps, with every deviation an error."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from mtcp_serve.errors import RequestError
from mtcp_serve.inference.images import read as read_image
from training.data.errors import LabelError
from training.data.maps import LabelMap, PixelMap
from training.label_spaces import IGNORE_LABEL, Part

_MODE_WORDS = {
    "1": "1-bit",
    "L": "8-bit grey",
    "P": "8-bit palette",
    "I;16": "16-bit grey",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGBA",
    "LA": "8-bit grey with alpha",
}


def read_image_file(path: Path, enough: tuple[int, int]) -> Tensor:
    """The image at ``path`` as serving reads it: upright by EXIF, any pixel format as RGB, alpha on white.

    Args:
        path: the file.
        enough: (H, W) from which more pixels bring nothing: a JPEG with at least twice as many a side is
            decoded at 1/2, 1/4 or 1/8, which saves most of the time for images straight from a camera.

    Returns:
        A uint8 RGB ``tv_tensors.Image`` [3, H, W].

    Raises:
        LabelError: the file cannot be decoded.
    """
    return read_with_focal(path, enough)[0]


def read_with_focal(path: Path, enough: tuple[int, int]) -> tuple[Tensor, tuple[float, float] | None]:
    """`read_image_file`, and the focal lengths over width and height where the EXIF says them.

    Raises:
        LabelError: the file cannot be decoded.
    """
    try:
        found = read_image(path, enough=min(enough))
    except (OSError, RequestError) as error:
        raise LabelError(path, f"not a readable image ({error})") from error
    image: Tensor = tv_tensors.Image(torch.from_numpy(np.array(found.image)).permute(2, 0, 1))
    info = found.info
    return image, info.focal and (info.focal[0] / info.width, info.focal[1] / info.height)


@contextmanager
def readable(path: Path) -> Iterator[Image.Image]:
    """The opened image; whatever goes wrong with its bytes is a :class:`LabelError`."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LabelError(path, f"not a readable image ({error})") from error


def read_pixels(path: Path, modes: Sequence[str], what: str) -> NDArray[np.integer]:
    """The pixels of an image file of one of Pillow's ``modes``, [H, W] or [H, W, channels].

    Raises:
        LabelError: the file cannot be decoded, or has another mode; ``what`` names it then.
    """
    with readable(path) as image:
        mode, pixels = image.mode, np.array(image)
    if mode not in modes:
        wanted = " or ".join(_MODE_WORDS.get(name, name) for name in modes)
        raise LabelError(path, f"is {_MODE_WORDS.get(mode, mode)}, {what} file must be {wanted}")
    return pixels


class MapFile(Protocol):
    """A file that one map of one image is read from."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    def read(self) -> PixelMap:
        """The map at the file's own resolution.

        Raises:
            LabelError: the file cannot be used.
        """
        ...


@dataclass(frozen=True, eq=False)
class DecodedFile:
    """A label file of a published data set and the function that reads it."""

    path: Path
    decode: Callable[[Path], PixelMap]
    part: Part | None = None
    """Of class ids, what they mean to the network; None: they are its own."""

    def read(self) -> PixelMap:
        """See `MapFile.read`."""
        values = self.decode(self.path)
        if self.part is None:
            return values
        return LabelMap.of(torch.from_numpy(self.part.target_ids(values.plain().numpy())))


@dataclass(frozen=True, eq=False)
class LabelFile:
    """One label file of a partial-label folder: where it is, what it holds and, of class ids, how many."""

    path: Path
    kind: type[PixelMap]
    classes: int | None = None
    part: Part | None = None
    """What the file's class ids mean to the network; None: they are its own."""
    shows_no_class: bool = False
    """Whether the image is known to show no class but background, class 0: where the file names none either,
    what it ignores is background too."""

    def read(self) -> PixelMap:
        """The map at the file's own resolution.

        Raises:
            LabelError: the file cannot be decoded, has the wrong mode or bit depth, or holds a class id that
                its label space does not have.
        """
        pixels = read_pixels(self.path, self.kind.modes, f"a {self.kind.__name__}")
        if self.classes is not None:
            check_ids(self.path, pixels, self.classes)
        if self.shows_no_class and not np.any((pixels != 0) & (pixels != IGNORE_LABEL)):
            pixels = np.zeros_like(pixels)
        if self.part is not None:
            pixels = self.part.target_ids(pixels)
        return self.kind.of(self.kind.decoded(torch.from_numpy(pixels)))


def check_ids(path: Path, ids: NDArray[np.integer], classes: int) -> None:
    """Raises `LabelError` if ``ids`` holds anything but class ids below ``classes`` and 255."""
    wrong = (ids >= classes) & (ids != IGNORE_LABEL)
    if wrong.any():
        worst = ", ".join(str(value) for value in np.unique(ids[wrong])[:5])
        raise LabelError(path, f"class ids {worst}: its label space has 0..{classes - 1} and 255 (ignore)")
