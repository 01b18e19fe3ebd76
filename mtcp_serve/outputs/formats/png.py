"""``png``: one map as a PNG file, the metadata in its text chunks."""

from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut
from mtcp_serve.outputs.formats.base import Writer, encode_maps


class PngWriter(Writer):
    """The file that every other format holds for this task; with ``visualize`` the picture instead."""

    name = "png"
    media_type = "image/png"
    file_name = "{task}.png"
    description = "the one map that `tasks` names, or with `visualize` its picture"
    single = True
    options = Writer.options - {"confidence"}

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        ((name, encoded),) = encode_maps(prediction, self.pool, self.wanted.style).items()
        self._file = encoded.png if encoded.picture is None else encoded.picture
        return {name: encoded.metadata}

    def finish(self, document: BaseModel) -> bytes:
        """The file; what ``document`` says of the map is in it already."""
        return self._file
