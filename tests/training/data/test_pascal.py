"""PASCAL_MT: five tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.data.published import (
    FLOOR_FROM,
    PASCAL_TASKS,
    SIZE,
    person,
    thing,
    write_mat,
    write_parts,
    write_pascal,
)
from tests.training.data.trees import write_png
from training.data import Source, SourceConfig, SourceError, build_source, find_broken_labels
from training.data.boundaries import boundaries
from training.data.context_classes import NORMALS_CLASSES
from training.data.pascal import PARTS
from training.label_spaces import LABEL_SPACES

LABELS = LABEL_SPACES["pascal_parts"].labels
FIRST, SECOND = "2008_000001", "2008_000002"


def source(root: Path, **settings: Any) -> Source:
    return build_source(SourceConfig(kind="pascal", root=str(root), **settings), PASCAL_TASKS, SIZE, None)


def test_all_five_tasks(tmp_path: Path) -> None:
    write_pascal(tmp_path)
    for found, name in zip((source(tmp_path)[0], source(tmp_path)[1]), (FIRST, SECOND), strict=True):
        assert found["id"] == name
        assert (found["semseg"][0] == 255).all()
        assert (found["semseg"][1:] == 15).all()
        assert (found["saliency"][..., :16] == 0).all()
        assert (found["saliency"][..., 16:] == 1).all()
        # the file's y is up and its x left; grass has no normal
        assert torch.allclose(found["normals"][:, 3, 3].float(), torch.tensor([0.0, 0.6, 0.8]), atol=0.01)
        assert (found["normals"][:, FLOOR_FROM:] == 0).all()
        edges = found["edges"][0]
        assert set(edges.nonzero()[:, 0].tolist()) <= {FLOOR_FROM - 1, FLOOR_FROM}
        assert (edges.sum(0)[1:-1] == 1).all()
        parts = found["parsing"]
        for index, label in enumerate(("head", "torso", "lower arm", "lower leg")):
            assert (parts[6 * index : 6 * index + 5, :16] == LABELS.index(label)).all()
        assert (parts[:, 16:] == 0).all()


def test_a_frame_that_is_given_is_believed(tmp_path: Path) -> None:
    write_pascal(tmp_path)
    found = source(tmp_path, normals_axes="right down")[0]["normals"]
    assert torch.allclose(found[:, 3, 3].float(), torch.tensor([0.0, -0.6, 0.8]), atol=0.01)


def test_24_parts_become_six() -> None:
    assert len(PARTS) == 24
    assert set(PARTS.values()) == set(LABELS) - {"background"}
    for side in "lr":
        assert {PARTS[f"{side}{part}"] for part in ("llarm"[1:], "hand")} == {"lower arm"}
        assert {PARTS[f"{side}{part}"] for part in ("lleg", "foot")} == {"lower leg"}


def test_images_without_a_person_are_ignored(tmp_path: Path) -> None:
    write_pascal(tmp_path)
    whole = np.ones(SIZE, bool)
    path = tmp_path / "human_parts" / f"{FIRST}.mat"
    for things in ([thing(12, whole, {"head": whole})], [thing(15, whole, {})], []):
        write_parts(path, *things)
        assert (source(tmp_path)[0]["parsing"] == 255).all()


def test_a_dog_beside_a_person_is_background(tmp_path: Path) -> None:
    write_pascal(tmp_path)
    right = np.zeros(SIZE, bool)
    right[:, 16:] = True
    write_parts(tmp_path / "human_parts" / f"{FIRST}.mat", thing(12, right, {"muzzle": right}), person())
    found = source(tmp_path)[0]["parsing"]
    assert (found[:, 16:] == 0).all()
    assert (found[:5, :16] == LABELS.index("head")).all()


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (f"JPEGImages/{SECOND}.jpg", f"JPEGImages/{SECOND}.jpg"),
        (f"human_parts/{SECOND}.mat", f"human_parts/{SECOND}.mat"),
        (f"pascal-context/trainval/{SECOND}.mat", f"trainval/{SECOND}.mat"),
        (f"semseg/VOC12/{FIRST}.png", f"neither in semseg/VOC12/.*pascal-context/{FIRST}.png"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, gone: str, named: str) -> None:
    write_pascal(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(SourceError, match=f"1 of 2 .*{named}"):
        source(tmp_path)


def test_odd_files_are_named(tmp_path: Path) -> None:
    whole = np.ones(SIZE, bool)
    cases: dict[str, tuple[Callable[[Path], object], str]] = {
        f"human_parts/{FIRST}.mat": (
            lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file, cut short"),
            "not a readable .mat file",
        ),
        f"semseg/VOC12/{FIRST}.png": (
            lambda path: write_png(path, np.full(SIZE, 21, np.uint8)),
            "class ids 21",
        ),
        f"human_parts/{SECOND}.mat": (
            lambda path: write_parts(path, thing(15, whole, {"tail": whole})),
            "a person has a part 'tail'",
        ),
    }
    write_pascal(tmp_path)
    for name, (spoil, _) in cases.items():
        spoil(tmp_path / name)
    found = {
        problem.path.relative_to(tmp_path).as_posix(): problem.why
        for problem in find_broken_labels([source(tmp_path)])
    }
    assert found.keys() == cases.keys()
    for name, (_, why) in cases.items():
        assert why in found[name]


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ({"labels": np.ones(SIZE)}, "has no variable 'LabelMap'"),
        ({"LabelMap": np.ones((2, 3, 4))}, "no [height, width] array"),
        ({"LabelMap": np.ones((12, 16))}, "is 32x24"),
    ],
)
def test_odd_label_maps_are_named(tmp_path: Path, contents: dict[str, Any], why: str) -> None:
    write_pascal(tmp_path)
    write_mat(tmp_path / "pascal-context" / "trainval" / f"{FIRST}.mat", **contents)
    problems = find_broken_labels([source(tmp_path)])
    assert problems
    assert why in str(problems[0])


def test_boundaries_are_one_pixel_thin() -> None:
    regions = np.zeros((20, 30), np.int64)
    regions[5:15, 8:20] = 7
    found = boundaries(regions)
    assert set(np.unique(found)) == {0, 1}
    assert found[:3].sum() == 0
    assert found[8:12].sum(1).tolist() == [2] * 4
    assert found[:, 12:16].sum(0).tolist() == [2] * 4


def test_normals_count_on_classes_that_both_data_sets_name() -> None:
    assert {68, 158, 284, 427, 440} <= set(NORMALS_CLASSES)  # ceiling, floor, person, tvmonitor, wall
    assert not {187, 258, 324, 360, 420, 431} & set(
        NORMALS_CLASSES
    )  # grass, motorbike, road, sky, tree, unknown
    assert max(NORMALS_CLASSES) < 460
