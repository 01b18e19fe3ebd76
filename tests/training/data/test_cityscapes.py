"""Cityscapes: semantics, disparity and parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.data.published import CITY_TASKS, SIZE, write_city
from tests.training.data.trees import HALF, wide, write_png
from training.data import Source, SourceConfig, SourceError, build_source, find_broken_labels
from training.data.cityscapes import split_uids
from training.label_spaces import LABEL_SPACES

SEMSEG, PARTS = LABEL_SPACES["cityscapes"].labels, LABEL_SPACES["cityscapes_parts"].labels


def source(root: Path, **settings: Any) -> Source:
    return build_source(SourceConfig(kind="cityscapes", root=str(root), **settings), CITY_TASKS, SIZE, None)


def test_the_three_tasks(tmp_path: Path) -> None:
    write_city(tmp_path)
    found = wide(source(tmp_path)[0])
    assert found["id"] == "ulm_000000_000019"
    semseg = found["semseg"][:, 0].tolist()
    assert semseg[:3] == [255, 255, SEMSEG.index("bicycle")]
    assert set(semseg[3:]) == {SEMSEG.index("car")}
    disparity = found["disparity"][0, :, 0]
    assert disparity[0] == 0  # no measurement
    assert disparity[1] == pytest.approx(1 / 256)  # infinitely far, which is a measurement
    assert torch.allclose(disparity[2:], torch.tensor(32 + 1 / 256), rtol=HALF)
    assert (found["depth"] == 0).all()
    wanted = ["background"] * 3 + ["torso", "legs", "chassis", "background", "wheels"]
    assert [PARTS[label] for label in found["parsing"][:8, 0].tolist()] == wanted


def test_universal_ids_split_into_their_digits() -> None:
    semantic, part = split_uids(np.array([7, 33, 26002, 24103, 2401002, 2600105, 9912399]))
    assert semantic.tolist() == [7, 33, 26, 24, 24, 26, 99]
    assert part.tolist() == [0, 0, 0, 0, 2, 5, 99]


def test_images_of_all_cities_in_order(tmp_path: Path) -> None:
    write_city(tmp_path, "zurich", "zurich_000001_000019")
    write_city(tmp_path, "aachen", "aachen_000000_000019")
    assert list(source(tmp_path).reader.ids) == ["aachen_000000_000019", "zurich_000001_000019"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images in .*leftImg8bit/train"):
        source(tmp_path)
    files = write_city(tmp_path)
    files["disparity"].unlink()
    with pytest.raises(SourceError, match=r"1 of 1 files of disparity/ missing.*_disparity\.png"):
        source(tmp_path)
    assert (source(tmp_path, read=["semseg"])[0]["semseg"] != 255).any()


@pytest.mark.parametrize(
    ("kind", "pixels", "why"),
    [
        ("gtFine", np.full(SIZE, 40, np.uint8), "holds id 40"),
        ("gtFine", np.zeros((*SIZE, 3), np.uint8), "is 8-bit RGB, a labelIds file"),
        ("disparity", np.zeros(SIZE, np.uint8), "is 8-bit grey, a disparity file"),
        ("gtFinePanopticParts", np.full(SIZE, 9900101, np.int32), "semantic id 99"),
    ],
)
def test_odd_files_are_named(tmp_path: Path, kind: str, pixels: np.ndarray, why: str) -> None:
    files = write_city(tmp_path)
    write_png(files[kind], pixels)
    (problem,) = find_broken_labels([source(tmp_path)])
    assert problem.path == files[kind]
    assert why in problem.why
