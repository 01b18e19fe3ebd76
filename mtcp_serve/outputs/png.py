"""A map as a PNG file that stays meaningful on its own: values in the pixels, metadata in a text chunk."""

from mtcp_serve.bundle.manifest import TaskSpec
from mtcp_serve.kinds import MapOut
from mtcp_serve.kinds.base import Map
from mtcp_serve.outputs.png_file import write_png
from mtcp_serve.outputs.schemas import ImageOut

TEXT_KEY = "mtcp"
"""Keyword of the text chunk with the map's metadata as JSON (`mtcp_serve.kinds.MapOut`)."""
IMAGE_KEY = "mtcp-image"
"""Keyword of the text chunk with what is known of the image (`mtcp_serve.outputs.schemas.ImageOut`)."""


def to_png(task: TaskSpec, values: Map, metadata: MapOut, version: str, image: ImageOut) -> bytes:
    """The map as a PNG file.

    Its text chunks: ``Title`` (the task), ``Source`` (the model and its ``version``), `TEXT_KEY`
    (``metadata``) and `IMAGE_KEY` (the image that the map belongs to).
    """
    text = {
        "Software": "mtcp-serve",
        "Title": task.name,
        "Source": f"{metadata.model} {version}",
        TEXT_KEY: metadata.model_dump_json(exclude_none=True, ensure_ascii=True),
        IMAGE_KEY: image.model_dump_json(exclude_none=True, ensure_ascii=True),
    }
    return write_png(task.to_image(values), text)
