"""Reading every file of the training data once before the first step, so that none can stop a run later."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from training.data.errors import BrokenLabelsError, LabelError
from training.data.sources import Source

Progress = Callable[[int, int], None]
"""Called with (records done, records in all)."""


def find_broken_labels(
    sources: Sequence[Source], workers: int = 2, progress: Progress | None = None
) -> list[LabelError]:
    """The images and label files of ``sources`` that cannot be used, in the order of the sources.

    Args:
        sources: what to check; files they do not read are not opened.
        workers: threads; decoding leaves Python's lock, so they run in parallel.
        progress: called after each record.
    """
    records = [(source, index) for source in sources for index in range(len(source))]
    broken: list[LabelError] = []
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda record: record[0].reader.problems(record[1]), records)
        for done, problems in enumerate(found, start=1):
            broken += problems
            if progress is not None:
                progress(done, len(records))
    return broken


def validate(sources: Sequence[Source], workers: int = 2, progress: Progress | None = None) -> None:
    """Checks what :func:`find_broken_labels` checks.

    Raises:
        BrokenLabelsError: names every file that cannot be used and why.
    """
    broken = find_broken_labels(sources, workers, progress)
    if broken:
        raise BrokenLabelsError(broken)
