"""The memory that reading one image takes: so many bytes for each pixel, in every format's worst kind."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mtcp_serve.inference.images import BYTES_PER_PIXEL
from tests.mtcp_serve.inference.images.build import bmp, png_chunk
from tests.mtcp_serve.support import encode
from tests.needs import needs_linux

WIDTH, HEIGHT = 4096, 2048
OVERHEAD = 24_000_000
"""What a decoder takes whatever the size of the image, copies of these small files among it."""
PROBE = """
import sys
from pathlib import Path
from PIL import Image
from mtcp_serve.inference.images import decode
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if "VmHWM" in line).split()[1])
Image.init()
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak()
    size = decode(data).image.size
    print(1024 * (peak() - before), *size)
"""


def kinds() -> dict[str, bytes]:
    grey = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    rgba = Image.merge("RGBA", (grey, grey, grey, grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    keyed = encode(wide, compress_level=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encode(rgba.convert("CMYK"), "JPEG", progressive=True, exif=exif),
        "png": encode(rgba, compress_level=1, exif=exif),
        "png-key": keyed[:33] + png_chunk(b"tRNS", b"\0\5") + keyed[33:],
        "webp": encode(rgba.convert("RGB"), "WEBP", method=0, exif=exif),
        "webp-alpha": encode(rgba, "WEBP", method=0, quality=1, alpha_quality=1, exif=exif),
        "gif": encode(grey.convert("P"), "GIF", transparency=5),
        "tiff": encode(rgba, "TIFF", compression="packbits", exif=exif),
        "tiff-float": encode(grey.convert("F"), "TIFF", compression="tiff_lzw"),
        "bmp": bmp(WIDTH, HEIGHT, 16, 6, bytes(2 * WIDTH * HEIGHT), (0xF, 0xF0, 0xF00, 0xF000)),
    }


@needs_linux
def test_bytes_for_each_pixel_are_as_stated(tmp_path: Path) -> None:
    files = kinds()
    for name, data in files.items():
        assert len(data) < 17_000_000, name
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", PROBE, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {}
    for name, line in zip(files, done.stdout.splitlines(), strict=True):
        taken, width, height = map(int, line.split())
        assert width * height == WIDTH * HEIGHT, name
        found[name] = (taken - OVERHEAD) / (WIDTH * HEIGHT)
    assert max(found.values()) <= BYTES_PER_PIXEL, found
    assert max(found.values()) > BYTES_PER_PIXEL / 2, f"state less: {found}"
