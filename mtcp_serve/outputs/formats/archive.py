"""Zip files in memory, as far as a response needs them."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Self, TypeVar
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import NDArray

from mtcp_serve.outputs.png_file import deflate

T = TypeVar("T")
_STEP: Final = 2**24  # bytes cleared at a time: other threads wait for it


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

    def __init__(self) -> None:
        super().__init__()
        self._reserved: dict[str, _Member] = {}

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Write the member ``name``, to the byte what `numpy.savez` writes.

        That copies the values twice, in pieces, and has zlib sum them up: three times as long, for maps at
        the model's size.
        """
        array = np.asarray(array, order="C")
        member = _Member.of(name, array)
        self._place(member)
        data = array.reshape(-1).view(np.uint8).data
        member.sum_up(data)
        self._buffer.writelines((member.head(), data))
        self.start_dir = self._buffer.tell()

    def reserve(self, name: str, shape: tuple[int, ...], kind: str) -> None:
        """Make room for the array ``name``, for `fill`: what is made at its place is not held twice."""
        member = _Member.of(name, np.broadcast_to(np.zeros((), kind), shape))
        self._place(member)
        self._reserved[name] = member
        self._buffer.write(member.head())
        start = self._buffer.tell()
        for size in (*range(_STEP, member.size, _STEP), member.size):
            self._buffer.seek(start + size - 1)
            self._buffer.write(b"\0")
        self.start_dir = self._buffer.tell()

    def fill(self, name: str, make: Callable[[NDArray[Any]], T]) -> T:
        """What ``make`` returns; it is given the reserved array ``name`` to write into, and may not keep it.

        Several threads may fill arrays at the same time; nothing may be added or reserved meanwhile.
        """
        member = self._reserved.pop(name)
        start = member.info.header_offset + len(member.head())
        whole = self._buffer.getbuffer()
        data = whole[start : start + member.size]
        made = make(np.frombuffer(data, member.kind).reshape(member.shape))
        member.sum_up(data)
        whole[member.info.header_offset : start] = member.head()
        return made

    def _place(self, member: "_Member") -> None:
        """Have ``member`` begin here."""
        member.info.header_offset = self._buffer.tell()
        self.filelist.append(member.info)


@dataclass(frozen=True)
class _Member:
    """An array in the archive: the header that says what it is, and its entry in the directory."""

    info: ZipInfo
    header: bytes
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    size: int
    """Of the values, bytes."""

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> Self:
        """Of ``array``, whose values do not matter yet."""
        header = BytesIO()
        write_array_header_1_0(
            header, {**header_data_from_array_1_0(array), "fortran_order": False, "shape": array.shape}
        )
        info = ZipInfo(f"{name}.npy")
        info.external_attr = 0o600 << 16
        info.CRC = 0
        info.file_size = info.compress_size = len(header.getvalue()) + array.nbytes
        return cls(info, header.getvalue(), array.shape, array.dtype, array.nbytes)

    def head(self) -> bytes:
        """All that is before the values; it has the sum of them."""
        return self.info.FileHeader(zip64=True) + self.header

    def sum_up(self, data: memoryview) -> None:
        """Enter the sum of the values ``data``."""
        self.info.CRC = deflate.crc32(data, deflate.crc32(self.header))
