"""``zip``: the PNG files and their metadata, to unpack and look at."""

from concurrent.futures import Executor
from zipfile import ZipInfo

from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut
from mtcp_serve.outputs.formats.archive import Archive
from mtcp_serve.outputs.formats.base import Options, Writer, encode_maps


class ZipWriter(Writer):
    """``TASK.png``, ``TASK.visualization.png``, ``TASK_confidence.png`` and ``metadata.json``.

    They are stored: a PNG is compressed already. They have no date (readers show 1980): that of a clock that
    was never set is not possible in a ZIP file.
    """

    name = "zip"
    media_type = "application/zip"
    file_name = "maps.zip"
    description = "`TASK.png` for each map and `metadata.json`"

    def __init__(self, pool: Executor, wanted: Options | None = None) -> None:
        super().__init__(pool, wanted)
        self._archive = Archive()

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        maps = {}
        for name, encoded in encode_maps(prediction, self.pool, self.wanted.style).items():
            for file, data in encoded.files(folder + name):
                self._archive.writestr(ZipInfo(file), data)
            maps[name] = encoded.metadata
        return maps

    def finish(self, document: BaseModel) -> bytes:
        """The archive."""
        text = document.model_dump_json(exclude_none=True, indent=1)
        self._archive.writestr(ZipInfo("metadata.json"), text)
        return self._archive.finish()
