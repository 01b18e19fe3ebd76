"""A zip file in memory, as far as an answer needs one."""

from io import BytesIO
from zipfile import ZIP_STORED, ZipFile


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
