from pathlib import Path

import numpy as np
import pytest

from tests.training.data.trees import SIZE, TASKS, folder, write_record, write_split
from training.data import Mixture, SourceError, build_source
from training.data.balance import class_balanced, sampling_factors
from training.data.counts import target_counts
from training.data.encodings import LabelFile
from training.data.maps import LabelMap


def _files(root: Path, contents: list[dict[int, int]]) -> list[LabelFile | None]:
    """Label files with so many pixels of each class; an empty dict is an image without a label."""
    files: list[LabelFile | None] = []
    for index, counts in enumerate(contents):
        ids = np.repeat(list(counts), list(counts.values())).astype(np.uint8)
        maps = {"semseg": np.resize(ids, (24, 32))} if counts else {}
        write_record(root, f"p{index}", maps)
        files.append(LabelFile(root / "semseg" / f"p{index}.png", LabelMap, 21) if counts else None)
    write_split(root, [f"p{index}" for index in range(len(contents))])
    return files


def test_rare_classes_are_drawn_by_the_power_of_their_frequency(tmp_path: Path) -> None:
    files = _files(tmp_path, [{0: 400, 15: 368}] * 8 + [{0: 400, 10: 368}] * 2)
    counts = target_counts(files)
    factors = class_balanced(counts, 0.5)
    assert factors.mean() == pytest.approx(1)
    assert factors[8] / factors[0] == pytest.approx(2)
    assert class_balanced(counts, 1.0)[8] / class_balanced(counts, 1.0)[0] == pytest.approx(4)
    assert class_balanced(counts, 0.0) == pytest.approx(np.ones(10))


def test_specks_and_ignored_pixels_make_no_class(tmp_path: Path) -> None:
    files = _files(tmp_path, [{0: 767, 1: 1}, {0: 700, 255: 68}, {255: 768}, {}])
    factors = class_balanced(target_counts(files), 0.5)
    assert factors[:2] == pytest.approx(factors[0])


def test_images_without_labels_keep_the_plain_factor(tmp_path: Path) -> None:
    files = _files(tmp_path, [{0: 768}, {0: 768}, {}])
    assert class_balanced(target_counts(files), 0.5) == pytest.approx(np.ones(3))


def test_a_balanced_source_keeps_its_share(tmp_path: Path) -> None:
    _files(tmp_path, [{0: 400, 15: 368}] * 8 + [{0: 400, 10: 368}] * 2)
    config = folder(tmp_path, balance="semseg", repeat=[("p9", 0.5)])
    source = build_source(config, TASKS, SIZE, None)
    factors = sampling_factors(source)
    assert factors[8] == pytest.approx(2 * factors[9])
    plain = build_source(folder(tmp_path, balance="semseg"), TASKS, SIZE, None)
    assert Mixture([plain]).masses[0].sum() == pytest.approx(10)


def test_balancing_needs_labels(tmp_path: Path) -> None:
    _files(tmp_path, [{}])
    with pytest.raises(SourceError, match="cannot be balanced by 'semseg'"):
        sampling_factors(build_source(folder(tmp_path, balance="semseg"), TASKS, SIZE, None))
