"""What a file's EXIF says of its camera; damaged or absurd entries say nothing."""

from math import hypot, isfinite
from typing import Any, Final

from PIL import ExifTags, Image

_FILM_DIAGONAL_MM: Final = hypot(36, 24)
_UNITS_MM: Final = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit
_SANE: Final = (0.05, 50.0)  # focal length over the image's longer side: 168 down to 1 degree


def orientation(exif: Image.Exif) -> int:
    """The EXIF orientation, 1 where there is none."""
    value = exif.get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) else 1


def focal_lengths(exif: Image.Exif, width: int, height: int) -> tuple[float, float] | None:
    """Focal lengths across and down, in pixels of the stored image of ``width`` x ``height`` pixels.

    From ``FocalLengthIn35mmFilm``, which is of the diagonal (CIPA DCG-001), or else from ``FocalLength`` and
    the pixels a millimetre of the sensor that the camera wrote (``FocalPlaneXResolution``). Neither knows of
    a picture that was cut out of another later.
    """
    entries = exif.get_ifd(ExifTags.IFD.Exif)
    found = _of_film(entries, width, height) or _of_sensor(entries, width, height)
    if found is None or not all(_SANE[0] < focal / max(width, height) < _SANE[1] for focal in found):
        return None
    return found


def _of_film(entries: dict[int, Any], width: int, height: int) -> tuple[float, float] | None:
    film = _number(entries, ExifTags.Base.FocalLengthIn35mmFilm)
    if film is None:
        return None
    focal = film * hypot(width, height) / _FILM_DIAGONAL_MM
    return focal, focal


def _of_sensor(entries: dict[int, Any], width: int, height: int) -> tuple[float, float] | None:
    length = _number(entries, ExifTags.Base.FocalLength)
    across = _number(entries, ExifTags.Base.FocalPlaneXResolution)
    down = _number(entries, ExifTags.Base.FocalPlaneYResolution) or across
    unit = _UNITS_MM.get(entries.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    if length is None or across is None or down is None or unit is None:
        return None
    taken_width = _number(entries, ExifTags.Base.ExifImageWidth) or width
    taken_height = _number(entries, ExifTags.Base.ExifImageHeight) or height
    per_mm = across / unit * width / taken_width, down / unit * height / taken_height
    return length * per_mm[0], length * per_mm[1]


def _number(entries: dict[int, Any], tag: int) -> float | None:
    """The positive finite number that stands under ``tag``."""
    try:
        value = float(entries[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value if isfinite(value) and value > 0 else None
