"""Reading every file of the training data once before the first step, so that none can stop a run later."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from training.data.errors import BrokenLabelsError, LabelError
from training.data.sources import Source


def find_broken_labels(sources: Sequence[Source], workers: int = 2) -> list[LabelError]:
    """The images and label files of ``sources`` that cannot be used, in the order of the sources.

    Args:
        sources: what to check; files they do not read are not opened.
        workers: threads; decoding leaves Python's lock, so they run in parallel.
    """
    records = [(source, index) for source in sources for index in range(len(source))]
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda record: record[0].reader.problems(record[1]), records)
        return [problem for problems in found for problem in problems]


def validate(sources: Sequence[Source], workers: int = 2) -> None:
    """Checks what :func:`find_broken_labels` checks.

    Raises:
        BrokenLabelsError: names every file that cannot be used and why.
    """
    broken = find_broken_labels(sources, workers)
    if broken:
        raise BrokenLabelsError(broken)
