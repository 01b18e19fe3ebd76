"""The segments of unfinished rendered videos, in a folder that outlives the process."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtcp_serve.utils.atomic import write_atomic

_MADE_FROM = "made_from.json"


class Segments:
    """Complete segments of the videos ``names`` in ``folder``; those made from anything else are deleted.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, names: Iterable[str], made_from: Mapping[str, Any]) -> None:
        self._folder = folder
        self._names = tuple(names)
        self.times: list[int] = []
        """When each of the frames in the segments is shown."""
        self.count = 0
        """How many segments there are, of every video."""
        if _read(folder / _MADE_FROM) != made_from:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            write_atomic(folder / _MADE_FROM, json.dumps(made_from).encode())
        while (times := _read(self._times_file(self.count))) is not None:
            self.times += times
            self.count += 1

    def add(self, times: list[int], videos: Mapping[str, bytes]) -> None:
        """Keep the next segment: when its frames are shown, and its MP4 file by name of the video.

        Raises:
            OSError: it cannot be written.
        """
        for name in self._names:
            write_atomic(self._file(name, self.count), videos[name])
        write_atomic(self._times_file(self.count), json.dumps(times).encode())  # last: the segment is whole
        self.times += times
        self.count += 1

    def files(self, name: str) -> list[Path]:
        """The files of the video ``name``, in order."""
        return [self._file(name, number) for number in range(self.count)]

    def _file(self, name: str, number: int) -> Path:
        return self._folder / f"{name}-{number:06d}.mp4"

    def _times_file(self, number: int) -> Path:
        return self._folder / f"times-{number:06d}.json"


def _read(path: Path) -> Any:
    """The content of a JSON file, ``None`` where there is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
