"""BentoML (extra ``bench``): one service in one worker, as many requests at a time as its defaults say."""

from pathlib import Path
from typing import Literal

import bentoml

from benchmarks.peers.work import Work


@bentoml.service(workers=1, http={"access_log": {"enabled": False}})
class Maps:
    """The graph is opened in the worker."""

    def __init__(self) -> None:
        self.work = Work.of_environment()

    @bentoml.api  # type: ignore[untyped-decorator]  # installed only where it is measured
    def predict(self, image: Path, format: Literal["npz", "json"]) -> bytes:
        """In one of BentoML's threads."""
        return self.work.answer(image.read_bytes(), format)
