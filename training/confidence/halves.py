"""Which images of a validation source confidences are calibrated on, and which are left to judge them by."""

from collections.abc import Sequence

from torch.utils.data import Subset

from training.data import Sample, Source

RUN = 20
"""Images in the order of the split's list that go to the same half: neighbours in it may show one room."""
FOLDS = 4
"""Parts of the calibration half for cross-fitting."""


def calibration_half(sources: Sequence[Source]) -> list[Subset[Sample]]:
    """Of each source the first `RUN` images, and then every other run."""
    return [_half(source, 0) for source in sources]


def folds(half: Sequence[Subset[Sample]]) -> list[int]:
    """For each image of a half, source after source, which of at most `FOLDS` parts its run belongs to."""
    runs = [(source, index // RUN) for source, subset in enumerate(half) for index in subset.indices]
    numbers = {run: number for number, run in enumerate(dict.fromkeys(runs))}
    return [numbers[run] % FOLDS for run in runs]


def held_out_half(sources: Sequence[Source]) -> list[Subset[Sample]]:
    """Of each source the images that are not in `calibration_half`."""
    return [_half(source, 1) for source in sources]


def _half(source: Source, which: int) -> Subset[Sample]:
    return Subset(source, [index for index in range(len(source)) if index // RUN % 2 == which])
