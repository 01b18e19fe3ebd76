"""The page shows an image the way up that the gateway reads it: by EXIF alone."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import Route

import mtcp_serve.server
from mtcp_serve.inference.images import decode
from tests.mtcp_serve.browser import chromium, needs_chromium
from tests.mtcp_serve.support import encode

pytestmark = needs_chromium
WEB = Path(mtcp_serve.server.__file__).parent / "web"
SHOWN = """
async (data) => {
  const module = await import("/input_image.js");
  const blob = await (await fetch("data:application/octet-stream;base64," + data)).blob();
  const canvas = (await module.InputImage.of(blob, "x")).canvas;
  const context = canvas.getContext("2d");
  const colors = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.width, canvas.height, Array.from(colors)];
}
"""
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" rdf:about="" tiff:Orientation="6"/>'
    "</rdf:RDF></x:xmpmeta>"
)


def turned(format: str, exif: int | None, xmp: bool) -> bytes:
    """A picture of four colours with an orientation in its EXIF, in its XMP, or in both."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40], pixels[:20, 40:], pixels[20:, :40] = (220, 30, 30), (30, 220, 30), (30, 30, 220)
    options: dict[str, Any] = {}
    if exif is not None:
        block = Image.Exif()
        block[0x0112] = exif
        options["exif"] = block
    if xmp and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
    elif xmp:
        options["xmp"] = XMP.encode()
    return encode(pixels, format, **options)


def _from_folder(route: Route) -> None:
    name = route.request.url.rpartition("/")[2]
    if name.endswith(".js"):
        route.fulfill(body=(WEB / name).read_text(), content_type="text/javascript")
    else:
        route.fulfill(body="<!doctype html>", content_type="text/html")


def test_the_page_and_the_gateway_agree() -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.route("http://page.test/**", _from_folder)
        page.goto("http://page.test/")
        for format in ("JPEG", "PNG", "WEBP"):
            for exif, xmp in [(None, True), *((exif, exif % 2 == 0) for exif in range(2, 9))]:
                data = turned(format, exif, xmp)
                image = decode(data)
                assert image.info.exif_rotated == (exif is not None), (format, exif, xmp)
                width, height, shown = page.evaluate(SHOWN, base64.b64encode(data).decode())
                assert (width, height) == image.image.size, (format, exif, xmp)
                colors = np.array(shown).reshape(height, width, 4)[..., :3]
                assert np.abs(colors - np.asarray(image.image)).mean() < 4, (format, exif, xmp)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_turns_nothing(format: str) -> None:
    if format == "TIFF":
        data = encode(Image.new("RGB", (8, 4)), "TIFF", tiffinfo={700: XMP.encode()})
    else:
        data = turned(format, None, True)
    image = decode(data)
    assert b"Orientation" in data
    assert not image.info.exif_rotated
    assert image.image.width == 2 * image.image.height
