"""AVIF and HEIC: opened by their decoders, which no walk of the file can bound (`isolated`)."""

from importlib.util import find_spec
from io import BytesIO
from typing import Final

from PIL import Image

from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.still import Still, not_supported

_BRANDS: Final = dict.fromkeys((b"avif", b"avis"), "AVIF") | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"
)
_MODULES: Final = {"AVIF": "PIL._avif", "HEIF": "pillow_heif"}


def container(head: bytes) -> str | None:
    """The format, ``AVIF`` or ``HEIF``, of a file that begins with ``head`` (64 bytes); none of another."""
    if head[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, size, 4))]
    found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if brands[0] in (b"mif1", b"msf1") and "AVIF" in found:
        return "AVIF"
    return found[0] if found else None


def readable(format: str) -> bool:
    """Whether there is a decoder of ``format``."""
    return find_spec(_MODULES[format]) is not None


def check_readable(format: str) -> None:
    """Refuse a format for which there is no decoder.

    Raises:
        InvalidImageError: there is none.
    """
    if not readable(format):
        what = "HEIC, unless the extra heif is installed" if format == "HEIF" else "AVIF by this Pillow"
        raise not_supported(what)


def look(data: bytes, limits: ImageLimits) -> Still:
    """Open the file and read its header; the decoder has turned it by the container's own orientation."""
    format = container(data[:64])
    if format == "HEIF":
        from pillow_heif import HeifImageFile

        image: Image.Image = HeifImageFile(BytesIO(data))
    else:
        image = Image.open(BytesIO(data), formats=("AVIF",))
    width, height = image.size
    exif = image.info.get("exif") or b""
    return Still(format or "AVIF", width, height, lambda: image, exif, getattr(image, "n_frames", 1) > 1)
