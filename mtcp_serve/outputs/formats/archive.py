"""Zip files in memory, as far as a response needs them."""

from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from numpy.lib.format import write_array
from numpy.typing import NDArray


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
        """Write the member ``name``."""
        with self.open(f"{name}.npy", "w", force_zip64=True) as member:
            write_array(member, array, allow_pickle=False)
