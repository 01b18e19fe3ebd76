"""Images in a folder."""

from os import PathLike
from pathlib import Path

from mtcp_serve.clients.errors import InvalidRequestError
from mtcp_serve.inference.images import IMAGE_SUFFIXES


def images_in(folder: str | PathLike[str]) -> list[Path]:
    """The images in a folder, by name.

    Raises:
        InvalidRequestError: the folder cannot be read.
    """
    try:
        return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise InvalidRequestError(f"{folder} cannot be read: {error.strerror or error}") from error
