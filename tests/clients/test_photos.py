"""Photos for Triton, read as the gateway reads them."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clients._photos import to_pixels
from mtcp_serve.bundle.manifest import InputSpec
from mtcp_serve.inference.images import ImageLimits, decode

SIZE = InputSpec(height=24, width=32)
ROWS, COLUMNS = np.mgrid[0:30, 0:40]
COLOURS = np.stack([ROWS * 8, COLUMNS * 6, ROWS + COLUMNS], axis=-1).astype(np.uint8)


def photo(mode: str) -> Image.Image:
    match mode:
        case "I;16":
            return Image.fromarray((ROWS * 2000 + COLUMNS).astype(np.uint16))
        case "I":
            return Image.fromarray((ROWS * 20_000 - COLUMNS).astype(np.int32))
        case "F":
            return Image.fromarray((ROWS / 29).astype(np.float32))
    return Image.fromarray(COLOURS).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_is_read_as_by_the_gateway(mode: str) -> None:
    buffer = BytesIO()
    photo(mode).save(buffer, "TIFF")
    content = buffer.getvalue()
    wanted = decode(content, ImageLimits(), enough=2 * SIZE.width)
    found = to_pixels(content, SIZE)
    np.testing.assert_array_equal(found, wanted.resized(SIZE.height, SIZE.width))
    assert found.min() < 64 < 192 < found.max()
