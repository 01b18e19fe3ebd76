"""``mtcp-serve`` that holds still before it keeps segment $HOLD_AT of a video, until $HOLD_UNTIL is there."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mtcp_serve.cli import main
from mtcp_serve.offline.video.segments import Segments

_add = Segments.add


def _held(self: Segments, times: list[int], videos: Mapping[str, bytes]) -> None:
    if self.count == int(os.environ["HOLD_AT"]):
        Path(os.environ["HOLD_UNTIL"]).with_suffix(".held").touch()
        while not Path(os.environ["HOLD_UNTIL"]).exists():
            time.sleep(0.005)
    _add(self, times, videos)


if __name__ == "__main__":
    Segments.add = _held  # type: ignore[method-assign]
    main()
