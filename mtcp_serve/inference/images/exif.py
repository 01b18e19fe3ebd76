"""What a file's EXIF says of its camera and of which way is up; damaged or absurd entries say nothing.

Read here, and not by Pillow, whose reader takes the orientation of XMP where EXIF has none, which browsers do
not, and reads every entry, of which there may be many.
"""

import struct
from collections.abc import Mapping
from math import hypot, isfinite
from typing import Final

from PIL import Image

UPRIGHT: Final = {  # EXIF orientation -> what brings the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

QUARTER_TURNS: Final = range(5, 9)
"""Orientations that swap width and height."""

_ORIENTATION, _EXIF_DIRECTORY = 0x0112, 0x8769
_FOCAL_LENGTH, _FOCAL_LENGTH_IN_35MM = 0x920A, 0xA405
_FOCAL_PLANE_X, _FOCAL_PLANE_Y, _FOCAL_PLANE_UNIT = 0xA20E, 0xA20F, 0xA210
_TAKEN_WIDTH, _TAKEN_HEIGHT = 0xA002, 0xA003
_TYPES: Final = {1: "B", 3: "H", 4: "I", 5: "II"}  # BYTE, SHORT, LONG, RATIONAL

_FILM_DIAGONAL_MM: Final = hypot(36, 24)
_UNITS_MM: Final = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit
_SANE: Final = (0.05, 50.0)  # focal length over the image's longer side: 168 down to 1 degree


def orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in the block ``exif``; 1 where there is none."""
    value = _Block(exif).first().get(_ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1


def focal_lengths(exif: bytes, width: int, height: int) -> tuple[float, float] | None:
    """Focal lengths across and down, in pixels of the stored image of ``width`` x ``height`` pixels.

    From ``FocalLengthIn35mmFilm``, which is of the diagonal (CIPA DCG-001), or else from ``FocalLength`` and
    the pixels a millimetre of the sensor that the camera wrote (``FocalPlaneXResolution``). Neither knows of
    an image that was cut out of another later.
    """
    block = _Block(exif)
    return focal_of(block.directory(int(block.first().get(_EXIF_DIRECTORY, 0))), width, height)


def focal_of(entries: Mapping[int, float], width: int, height: int) -> tuple[float, float] | None:
    """`focal_lengths`, of the numbers in the EXIF directory by their tags."""
    found = _of_film(entries, width, height) or _of_sensor(entries, width, height)
    if found is None or not all(_SANE[0] < focal / max(width, height) < _SANE[1] for focal in found):
        return None
    return found


class _Block:
    """An EXIF block, or a whole classic TIFF file, which begins alike."""

    def __init__(self, data: bytes) -> None:
        self._data = data.removeprefix(b"Exif\0\0")
        self._order = {b"II*\0": "<", b"MM\0*": ">"}.get(self._data[:4])

    def first(self) -> dict[int, float]:
        """The numbers in the first directory."""
        return self.directory(self._read("I", 4)[0]) if self._order and len(self._data) >= 8 else {}

    def directory(self, place: int) -> dict[int, float]:
        """The first number of each entry of the directory at ``place`` that has one."""
        found: dict[int, float] = {}
        if not self._order or not place:
            return found
        try:
            (count,) = self._read("H", place)
            for entry in range(place + 2, place + 2 + 12 * count, 12):
                tag, kind = self._read("HH", entry)
                if kind in _TYPES:
                    value = self._value(_TYPES[kind], entry + 8)
                    if value is not None:
                        found.setdefault(tag, value)
        except struct.error:
            pass
        return found

    def _value(self, code: str, place: int) -> float | None:
        """The number at ``place``, or of a fraction where that points."""
        if len(code) == 1:
            return float(self._read(code, place)[0])
        try:
            above, below = self._read(code, self._read("I", place)[0])
        except struct.error:
            return None
        return above / below if below else None

    def _read(self, codes: str, place: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._order}{codes}", self._data, place)


def _of_film(entries: Mapping[int, float], width: int, height: int) -> tuple[float, float] | None:
    film = _positive(entries, _FOCAL_LENGTH_IN_35MM)
    if film is None:
        return None
    focal = film * hypot(width, height) / _FILM_DIAGONAL_MM
    return focal, focal


def _of_sensor(entries: Mapping[int, float], width: int, height: int) -> tuple[float, float] | None:
    length = _positive(entries, _FOCAL_LENGTH)
    across = _positive(entries, _FOCAL_PLANE_X)
    down = _positive(entries, _FOCAL_PLANE_Y) or across
    unit = _UNITS_MM.get(int(entries.get(_FOCAL_PLANE_UNIT, 2)))
    if length is None or across is None or down is None or unit is None:
        return None
    taken_width = _positive(entries, _TAKEN_WIDTH) or width
    taken_height = _positive(entries, _TAKEN_HEIGHT) or height
    if (taken_width - taken_height) * (width - height) < 0:  # turned already, as HEIC's container says
        taken_width, taken_height, across, down = taken_height, taken_width, down, across
    per_mm = across / unit * width / taken_width, down / unit * height / taken_height
    return length * per_mm[0], length * per_mm[1]


def _positive(entries: Mapping[int, float], tag: int) -> float | None:
    """The positive finite number that stands under ``tag``."""
    value = entries.get(tag, 0.0)
    return value if isfinite(value) and value > 0 else None
