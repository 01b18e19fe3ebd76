"""Response formats. A new one is a file with a `Writer` and its class in the list below."""

from mtcp_serve.outputs.formats.base import Options, Writer
from mtcp_serve.outputs.formats.cutout import CutoutWriter
from mtcp_serve.outputs.formats.exr import ExrWriter
from mtcp_serve.outputs.formats.glb import GlbWriter
from mtcp_serve.outputs.formats.json import JsonWriter
from mtcp_serve.outputs.formats.multipart import MultipartWriter
from mtcp_serve.outputs.formats.npz import NpzWriter
from mtcp_serve.outputs.formats.ply import PlyWriter
from mtcp_serve.outputs.formats.png import PngWriter
from mtcp_serve.outputs.formats.usdz import UsdzWriter
from mtcp_serve.outputs.formats.zip import ZipWriter

__all__ = ["BATCH_FORMATS", "FORMATS", "Options", "Writer"]

_WRITERS: list[type[Writer]] = [
    JsonWriter,
    NpzWriter,
    ZipWriter,
    MultipartWriter,
    PngWriter,
    PlyWriter,
    GlbWriter,
    UsdzWriter,
    CutoutWriter,
    ExrWriter,
]

FORMATS = {writer.name: writer for writer in _WRITERS}
"""By name; the first is the default."""
BATCH_FORMATS = {name: writer for name, writer in FORMATS.items() if not (writer.single or writer.one_image)}
"""Those that hold several images."""
