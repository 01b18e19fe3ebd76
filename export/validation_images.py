"""Images to compare a graph with PyTorch on."""

import codecs
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from export.errors import ExportError
from mtcp_serve.errors import RequestError
from mtcp_serve.inference.images import IMAGE_SUFFIXES
from mtcp_serve.inference.sources import name_of, to_image
from training.data import SourceConfig, build_source

RgbImage = NDArray[np.uint8]

ImagesOption = Annotated[
    Path | None,
    typer.Option(help="Folder of images to compare the maps on.", exists=True, file_okay=False),
]
IdsOption = Annotated[
    Path | None,
    typer.Option(help="File of the ids to take from --images, e.g. a split.", exists=True, dir_okay=False),
]

MOST = 20
"""Images taken from a folder, evenly over its sorted names."""


def load_images(folder: Path | None, height: int, width: int, ids: Path | None = None) -> dict[str, RgbImage]:
    """Up to `MOST` images by file name, RGB uint8 [height,width,3], read and stretched as the server does.

    ``ids`` is a file with one id (file name without suffix) a line, e.g. the validation split of the folder;
    only those images are taken. Without a folder: the astronaut, the cup of coffee and the cat that
    scikit-image carries, or where that is not installed three procedural scenes.

    Raises:
        ExportError: the folder has no image, or there is none for ``ids``; an image or ``ids`` cannot be
            read.
    """
    images: Mapping[str, Path | RgbImage]
    if folder is not None:
        images = _folder_images(folder, ids)
    elif ids is not None:
        raise ExportError("--ids says which of the images of --images to take; give both")
    elif find_spec("skimage"):
        images = _standard_images()
    else:
        return _scenes(height, width)
    return {name: _read(image, height, width) for name, image in images.items()}


def _read(image: Path | RgbImage, height: int, width: int) -> RgbImage:
    try:
        return to_image(image, enough=2 * max(height, width)).resized(height, width)
    except (OSError, RequestError) as error:
        raise ExportError(f"{name_of(image)} cannot be read: {error}") from error


def _folder_images(folder: Path, ids: Path | None) -> dict[str, Path]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if ids is not None:
        try:
            data = ids.read_bytes()
            marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            lines = data.decode("utf-16" if marked else "utf-8-sig").splitlines()
            expected = {line.strip() for line in lines}
        except (OSError, UnicodeDecodeError) as error:
            raise ExportError(f"{ids} is not a list of ids: {error}") from error
        paths = [path for path in paths if path.stem in expected]
    if not paths:
        listed = f" that {ids} lists" if ids is not None else ""
        raise ExportError(f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) in {folder}{listed}")
    count = min(len(paths), MOST)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    return {path.name: path for path in chosen}


def _standard_images() -> dict[str, RgbImage]:
    from skimage import data

    return {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea")}


def _scenes(height: int, width: int) -> dict[str, RgbImage]:
    config = SourceConfig(kind="scenes", split="parity", count=3, read=[])
    source = build_source(config, (), (height, width), None)
    return {
        sample["id"]: sample["image"].permute(1, 2, 0).numpy() for sample in map(source.__getitem__, range(3))
    }
