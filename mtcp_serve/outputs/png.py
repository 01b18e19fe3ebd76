"""A map as a PNG file that stays meaningful on its own: values in the pixels, metadata in a text chunk."""

from io import BytesIO

from PIL.PngImagePlugin import PngInfo

from mtcp_serve.bundle.manifest import TaskSpec
from mtcp_serve.kinds import MapOut
from mtcp_serve.kinds.base import Map
from mtcp_serve.outputs.schemas import ImageOut

COMPRESS_LEVEL = 1
"""Level 6 takes 4 to 7 times as long for a few per cent."""
TEXT_KEY = "mtcp"
"""Keyword of the text chunk with the map's metadata as JSON (`mtcp_serve.kinds.MapOut`)."""
IMAGE_KEY = "mtcp-image"
"""Keyword of the text chunk with what is known of the photo (`mtcp_serve.outputs.schemas.ImageOut`)."""


def to_png(task: TaskSpec, values: Map, metadata: MapOut, version: str, image: ImageOut) -> bytes:
    """The map as a PNG file.

    Its text chunks: ``Title`` (the task), ``Source`` (the model and its ``version``), `TEXT_KEY`
    (``metadata``) and `IMAGE_KEY` (the photo that the map belongs to).
    """
    text = PngInfo()
    text.add_text("Software", "mtcp-serve")
    text.add_text("Title", task.name)
    text.add_text("Source", f"{metadata.model} {version}")
    text.add_text(TEXT_KEY, metadata.model_dump_json(exclude_none=True, ensure_ascii=True))
    text.add_text(IMAGE_KEY, image.model_dump_json(exclude_none=True, ensure_ascii=True))
    buffer = BytesIO()
    task.to_image(values).save(buffer, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=text)
    return buffer.getvalue()
