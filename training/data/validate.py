"""Reading every file of the training data once before the first step, so that none can stop a run later."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from training.data.encodings import read_photo
from training.data.errors import BrokenLabelsError, LabelError
from training.data.sources import Source

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""


def _problem(read: Callable[[], object]) -> LabelError | None:
    try:
        read()
    except LabelError as error:
        return error
    return None


def find_broken_labels(
    sources: Sequence[Source], workers: int = 2, progress: Progress | None = None
) -> list[LabelError]:
    """The photos and label files of ``sources`` that cannot be used, in the order of the sources.

    Args:
        sources: what to check; files they do not read are not opened.
        workers: threads; decoding leaves Python's lock, so they run in parallel.
        progress: called after each file.
    """
    checks: list[Callable[[], object]] = []
    for source in sources:
        checks += [partial(read_photo, path) for path in source.reader.photos]
        checks += [file.read for files in source.reader.labels for file in files.values()]
    broken = []
    with ThreadPoolExecutor(workers) as pool:
        for done, problem in enumerate(pool.map(_problem, checks), start=1):
            if problem is not None:
                broken.append(problem)
            if progress is not None:
                progress(done, len(checks))
    return broken


def validate(sources: Sequence[Source], workers: int = 2, progress: Progress | None = None) -> None:
    """Checks what :func:`find_broken_labels` checks.

    Raises:
        BrokenLabelsError: names every file that cannot be used and why.
    """
    broken = find_broken_labels(sources, workers, progress)
    if broken:
        raise BrokenLabelsError(broken)
