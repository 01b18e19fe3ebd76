"""``multipart``: the metadata and the PNG files as parts, without base64 and without an archive."""

import uuid
from concurrent.futures import Executor

from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut
from mtcp_serve.outputs.formats.base import Options, Writer, encode_maps


class MultipartWriter(Writer):
    """The first part is the JSON; every other is a PNG, its ``filename`` as in ``zip`` (RFC 2046)."""

    name = "multipart"
    media_type = "multipart/mixed"
    file_name = "maps.multipart"
    description = "first the metadata as JSON, then a part `TASK.png` for each map"

    def __init__(self, pool: Executor, wanted: Options | None = None) -> None:
        super().__init__(pool, wanted)
        self._boundary = uuid.uuid4().hex
        self._parts: list[bytes] = []

    @property
    def content_type(self) -> str:
        """With the boundary."""
        return f"{self.media_type}; boundary={self._boundary}"

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        maps = {}
        for name, encoded in encode_maps(prediction, self.pool, self.wanted.style).items():
            for file, data in encoded.files(folder + name):
                self._parts.append(self._part(file, "image/png", data))
            maps[name] = encoded.metadata
        return maps

    def finish(self, document: BaseModel) -> bytes:
        """The parts, the JSON first."""
        text = document.model_dump_json(exclude_none=True).encode()
        first = self._part("metadata.json", "application/json", text)
        return b"".join([first, *self._parts, f"--{self._boundary}--\r\n".encode()])

    def _part(self, file: str, media_type: str, data: bytes) -> bytes:
        head = (
            f"--{self._boundary}\r\nContent-Type: {media_type}\r\n"
            f'Content-Disposition: attachment; filename="{file}"\r\nContent-Length: {len(data)}\r\n\r\n'
        )
        return head.encode("ascii") + data + b"\r\n"
