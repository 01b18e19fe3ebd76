"""Zip files in memory, as far as a response needs them."""

from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import NDArray

from mtcp_serve.outputs.png_file import deflate


class Archive(ZipFile):
    """Members are stored, not deflated; one that is dropped before `finish` goes without a word."""

    def __init__(self) -> None:
        self._buffer = BytesIO()
        super().__init__(self._buffer, "w", ZIP_STORED)

    def __del__(self) -> None:
        """Write no directory: nobody reads it, and the buffer may be gone already."""

    def finish(self) -> bytes:
        """The whole file."""
        self.close()
        return self._buffer.getvalue()


class ArrayArchive(Archive):
    """An npz file: every member is an array."""

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Write the member ``name``, to the byte what `numpy.savez` writes.

        That copies the values twice, in pieces, and has zlib sum them up: three times as long, for maps at
        the model's size.
        """
        head = BytesIO()
        array = np.asarray(array, order="C")
        write_array_header_1_0(head, header_data_from_array_1_0(array))
        parts = head.getvalue(), array.reshape(-1).view(np.uint8).data
        info = ZipInfo(f"{name}.npy")
        info.external_attr = 0o600 << 16
        info.header_offset = self._buffer.tell()
        info.file_size = info.compress_size = sum(map(len, parts))
        info.CRC = deflate.crc32(parts[1], deflate.crc32(parts[0]))
        self._buffer.writelines((info.FileHeader(zip64=True), *parts))
        self.filelist.append(info)
        self.start_dir = self._buffer.tell()
