"""Whatever a program calls an image is read in one way."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin, TiffTags
from PIL.PngImagePlugin import PngInfo

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images import ImageLimits, decode
from mtcp_serve.inference.sources import ImageSource, to_image
from tests.mtcp_serve.support import encode, noise

ROWS, COLUMNS = np.mgrid[0:30, 0:40]
XMP = 700
COLORS = np.stack([ROWS * 8, COLUMNS * 6, ROWS + COLUMNS], axis=-1).astype(np.uint8)


def image(mode: str) -> Image.Image:
    match mode:
        case "I;16":
            return Image.fromarray((ROWS * 2000 + COLUMNS).astype(np.uint16))
        case "I":
            return Image.fromarray((ROWS * 20_000 - COLUMNS).astype(np.int32))
        case "F":
            return Image.fromarray((ROWS / 29).astype(np.float32))
    return Image.fromarray(COLORS).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_a_pillow_image_is_read_as_its_file(mode: str) -> None:
    buffer = BytesIO()
    image(mode).save(buffer, "TIFF")
    expected = decode(buffer.getvalue()).image
    assert np.array_equal(np.asarray(to_image(image(mode)).image), np.asarray(expected))


def test_all_forms_of_one_image_are_equal(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    path = tmp_path / "image.png"
    path.write_bytes(encode(pixels))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms: list[ImageSource] = [
        path,
        str(path),
        path.read_bytes(),
        Image.fromarray(pixels),
        pixels,
        pixels[::-1][::-1],
        (pixels / 255).astype(np.float32),
        pixels.astype(np.float64) / 255,
        tensor,
        tensor.float().div(255).requires_grad_(),
    ]
    for form in forms:
        photo = to_image(form)
        assert np.array_equal(np.asarray(photo.image), pixels)
        assert (photo.info.width, photo.info.height) == (30, 20)


def test_a_tensor_may_be_bfloat16() -> None:
    tensor = torch.from_numpy(noise(20, 30)).permute(2, 0, 1).div(255).bfloat16()
    assert np.array_equal(np.asarray(to_image(tensor).image), np.asarray(to_image(tensor.float()).image))


@pytest.mark.parametrize("kind", ["array", "tensor", "Pillow"])
def test_what_is_done_to_it_afterwards_changes_nothing(kind: str) -> None:
    pixels = noise(20, 30)
    made: dict[str, Any] = {
        "array": pixels.copy(),
        "tensor": torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        "Pillow": Image.fromarray(pixels),
    }
    form = made[kind]
    photo = to_image(form)
    if kind == "Pillow":
        form.paste("red", (0, 0, 30, 20))
    else:
        form[:] = 0
    assert np.array_equal(np.asarray(photo.image), pixels)


def test_the_exif_of_a_pillow_image_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    Image.fromarray(noise(20, 30)).save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as opened:
        photo = to_image(opened)
    expected = decode(buffer.getvalue())
    assert photo.info.exif_rotated
    assert photo.image.size == (20, 30) == (photo.info.width, photo.info.height)
    assert np.array_equal(np.asarray(photo.image), np.asarray(expected.image))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"shape \[4, 5\]"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \[3, 4, 5\]"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \[0, 4, 3\]"),
        (np.zeros((4, 5, 3), np.int64), "type int64"),
        (np.full((4, 5, 3), 200.0), "from 200 to 200"),
        (np.full((4, 5, 3), -0.1), "from -0.1"),
        (np.full((4, 5, 3), np.nan), "from nan"),
        (torch.zeros(4, 5, 3), r"tensor of shape \[4, 5, 3\]"),
        (Image.new("RGB", (0, 5)), "Pillow image of 0 x 5 pixels"),
    ],
)
def test_what_is_not_an_image_is_refused_with_what_to_give(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidImageError, match=message) as caught:
        to_image(wrong)
    assert caught.value.hint


def test_what_is_no_image_at_all_is_refused() -> None:
    with pytest.raises(TypeError, match=r"an image is a path, bytes.*; this is int"):
        to_image(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ImageLimits(max_pixels=500), "the image is 30 x 20 = 600 pixels, the limit is 500"),
        (ImageLimits(max_side=25), "the image is 30 x 20 pixels, the limit of a side is 25"),
    ],
)
def test_the_limits_are_those_of_files(limits: ImageLimits, message: str) -> None:
    for form in (noise(20, 30), Image.fromarray(noise(20, 30)), encode(noise(20, 30))):
        with pytest.raises(ImageTooLargeError, match=message):
            to_image(form, limits)


def test_torch_is_not_imported() -> None:
    code = "import sys, mtcp_serve.inference.sources; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pillow_image_is_turned_by_its_exif(format: str, loaded: bool, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(COLORS), format, exif=exif)
    with Image.open(BytesIO(data)) as opened:
        if loaded and format != "TIFF":  # which Pillow turns itself when it loads it
            opened.load()
        photo = to_image(opened)
    wanted = decode(data)
    assert np.array_equal(np.asarray(photo.image), np.asarray(wanted.image))
    assert photo.info.exif_rotated == wanted.info.exif_rotated == (orientation > 1)


SAYS = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'


def xmp_and(orientation: int | None, format: str) -> dict[str, Any]:
    """What makes Pillow write ``SAYS`` as XMP, and ``orientation`` as EXIF."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    if format == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[XMP] = TiffTags.BYTE
        tags[XMP] = SAYS
        tags.update(exif)
        return {"tiffinfo": tags}
    if format == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", SAYS.decode())
        return {"pnginfo": text, "exif": exif}
    return {"xmp": SAYS, "exif": exif}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("exif", [None, 1, 3])
def test_an_orientation_in_xmp_turns_no_pillow_image(format: str, exif: int | None) -> None:
    options = xmp_and(exif, format)
    data = encode(Image.fromarray(COLORS), format, **options)
    with Image.open(BytesIO(data)) as opened:
        assert opened.getexif()[0x0112] == (exif or 6), "Pillow reads it"
        photo = to_image(opened)
    assert photo.image.size == (40, 30)
    assert np.array_equal(np.asarray(photo.image), np.asarray(decode(data).image))
