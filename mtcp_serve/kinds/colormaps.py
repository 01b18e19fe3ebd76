"""Colour tables by name: matplotlib's, as data, so that nothing has to be imported to colour a map.

``colormaps.json`` has 256 RGB colours each, in hexadecimal, as matplotlib 3.11 has them: viridis, magma,
inferno, plasma and cividis (CC0), turbo (A. Mikhailov, Google, Apache-2.0), spectral (C. Brewer's
ColorBrewer, Apache-2.0) and gray.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

DEFAULT: Final = "heat"
"""What a map is coloured by where nobody names a table."""
_REVERSED: Final = "_r"
_ANCHORS: Final = np.array(  # dark and cold to bright and warm, lightness rising evenly
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    np.float64,
)


@cache
def _tables() -> dict[str, NDArray[np.uint8]]:
    heat = [np.interp(np.linspace(0, 8, 256), np.arange(9), _ANCHORS[:, channel]) for channel in range(3)]
    tables = {DEFAULT: np.stack(heat, axis=1).astype(np.uint8)}
    stored: dict[str, str] = json.loads(files("mtcp_serve.kinds").joinpath("colormaps.json").read_bytes())
    for name, text in stored.items():
        tables[name] = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(256, 3)
    return tables


@cache
def colormap_names() -> tuple[str, ...]:
    """The names there are; each may end in ``_r``, which reverses it."""
    return tuple(_tables())


def colormap(name: str) -> NDArray[np.uint8]:
    """The colour table ``name``, uint8 ``[256, 3]`` RGB, from the lowest value to the highest.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    plain = name.removesuffix(_REVERSED)
    if plain not in _tables():
        raise ValueError(f"{name!r} is none of {', '.join(_tables())}, nor one of them reversed (turbo_r)")
    table = _tables()[plain]
    return table if name == plain else table[::-1]


def _known(name: str) -> str:
    colormap(name)
    return name


ColormapName = Annotated[str, AfterValidator(_known)]
"""The name of a colour table, for pydantic."""
