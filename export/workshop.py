"""A place for what is being made, on the disk where it will stay."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def workshop(parent: Path, name: str) -> Iterator[Path]:
    """Give a new hidden folder in ``parent``; it is removed at the end, however that comes.

    `tempfile.TemporaryDirectory` leaves its folder behind when an interrupt comes while it is being made.

    Raises:
        OSError: nothing can be made in ``parent``.
    """
    folder = parent / f".{name}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
