"""``json``: the metadata, each map in it as a base64 PNG."""

from base64 import b64encode

from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut
from mtcp_serve.outputs.formats.base import Writer, encode_maps


class JsonWriter(Writer):
    """``png`` (and ``visualization``, ``confidence.png``) of each map hold the files."""

    name = "json"
    media_type = "application/json"
    file_name = "maps.json"
    description = "the metadata, with each map as a base64 PNG"

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        maps = {}
        for name, encoded in encode_maps(prediction, self.pool, self.wanted.style).items():
            encoded.metadata.png = b64encode(encoded.png).decode("ascii")
            if encoded.picture is not None:
                encoded.metadata.visualization = b64encode(encoded.picture).decode("ascii")
            if encoded.confidence is not None and encoded.metadata.confidence is not None:
                encoded.metadata.confidence.png = b64encode(encoded.confidence).decode("ascii")
            maps[name] = encoded.metadata
        return maps

    def finish(self, document: BaseModel) -> bytes:
        """The document itself."""
        return document.model_dump_json(exclude_none=True).encode()
