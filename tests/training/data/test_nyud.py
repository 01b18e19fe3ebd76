"""NYUD_MT in both releases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.data.published import FLOOR_FROM, NYUD_TASKS, SIZE, room, write_npy, write_nyud
from tests.training.data.trees import HALF, wide, write_png
from training.data import LabelError, Sample, SourceConfig, SourceError, build_source, find_broken_labels
from training.label_spaces import LABEL_SPACES
from training.tasks import make_task

NYU40, NYU13 = LABEL_SPACES["nyu40"].labels, LABEL_SPACES["nyu13"].labels


def config(root: Path, **settings: Any) -> SourceConfig:
    return SourceConfig(kind="nyud", root=str(root), **settings)


def sample(root: Path, **settings: Any) -> Sample:
    return build_source(config(root, **settings), NYUD_TASKS, SIZE, None)[0]


@pytest.mark.parametrize("release", ["npy", "png"])
@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_both_releases_in_any_frame(tmp_path: Path, release: str, signs: tuple[int, int]) -> None:
    write_nyud(tmp_path, release, signs)
    found = wide(sample(tmp_path))
    depth, normals = room()
    assert found["id"] == "0001"
    assert (found["semseg"][0] == 255).all()
    assert (found["semseg"][1] == NYU40.index("otherprop")).all()
    assert (found["semseg"][2:] == NYU40.index("bed")).all()
    assert (found["depth"][0, 0] == 0).all()
    assert torch.allclose(found["depth"][0, 1:], torch.from_numpy(depth)[1:], rtol=HALF)
    assert (found["normals"][:, 0] == 0).all()
    wanted = torch.from_numpy(normals).permute(2, 0, 1)
    assert torch.allclose(found["normals"][:, 1:], wanted[:, 1:], atol=0.01)
    assert (found["edges"][0, FLOOR_FROM] == 1).all()
    assert found["edges"].sum() == SIZE[1]
    assert (found["disparity"] == 0).all()


def test_a_frame_that_is_given_is_believed(tmp_path: Path) -> None:
    write_nyud(tmp_path, "npy", (1, -1))
    told = wide(sample(tmp_path, normals_axes="right up"))
    assert torch.allclose(told["normals"][:, -1, 0], torch.tensor([0, -0.8, 0.6]), atol=HALF)


def test_depth_that_does_not_say_the_frame_is_named(tmp_path: Path) -> None:
    write_nyud(tmp_path, "npy")
    write_npy(tmp_path / "depth" / "0001.npy", np.full(SIZE, 2.0))
    with pytest.raises(SourceError, match="set normals_axes"):
        sample(tmp_path)
    assert (sample(tmp_path, normals_axes="right up")["normals"] != 0).any()
    assert (sample(tmp_path, read=["depth"])["depth"] == 2).all()


def test_the_13_classes_of_the_ial_setting(tmp_path: Path) -> None:
    write_nyud(tmp_path, "npy")
    tasks = [make_task("semseg", "nyu13")]
    found = build_source(config(tmp_path), tasks, SIZE, None)[0]["semseg"]
    members = LABEL_SPACES["nyu13"].targets.members
    assert (found[0] == 255).all()
    for rows, name in ((found[1], "objects"), (found[2:], "bed")):
        (target,) = rows.unique().tolist()
        assert [NYU13[index] for index in members[target].nonzero()[0]] == [name]


def test_a_folder_that_is_not_there_is_no_label(tmp_path: Path) -> None:
    write_nyud(tmp_path, "npy")
    for path in (tmp_path / "edge").iterdir():
        path.unlink()
    (tmp_path / "edge").rmdir()
    assert (sample(tmp_path)["edges"] == -1).all()
    with pytest.raises(SourceError, match=r"1 of 1 files of edge/ missing, the first is .*0001\.npy"):
        sample(tmp_path, read=["edges"])


@pytest.mark.parametrize("gone", ["images/b.jpg", "depth/b.npy", "segmentation/b.png"])
def test_a_missing_file_is_named(tmp_path: Path, gone: str) -> None:
    write_nyud(tmp_path, "npy", (1, 1), "a", "b")
    (tmp_path / gone).unlink()
    with pytest.raises(SourceError, match=f"1 of 2 files of .* missing, the first is .*{gone}"):
        sample(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("segmentation/0001.png", np.full(SIZE, 41, np.uint8), "holds class 41"),
        ("segmentation/0001.png", np.ones(SIZE, np.uint16), "is 16-bit grey, a segmentation file"),
        ("depth/0001.npy", np.full(SIZE, -1.0), "a depth of -1 m"),
        ("depth/0001.npy", np.ones((*SIZE, 3)), "has shape [24, 32, 3], it must have 2 axes"),
        ("depth/0001.npy", np.array(["a"]), "no array of numbers"),
        ("depth/0001.npy", np.ones((32, 24)), "other proportions"),
        ("normals/0001.npy", np.full((*SIZE, 3), 128.0), "outside -1..1"),
        ("normals/0001.npy", np.ones((*SIZE, 4)), "normals are [height, width, 3]"),
    ],
)
def test_odd_files_are_named(tmp_path: Path, name: str, values: np.ndarray, why: str) -> None:
    write_nyud(tmp_path, "npy")
    if name.endswith("png"):
        write_png(tmp_path / name, values)
    else:
        write_npy(tmp_path / name, values)
    source = build_source(config(tmp_path, normals_axes="right up"), NYUD_TASKS, SIZE, None)
    (problem,) = find_broken_labels([source])
    assert problem.path == tmp_path / name
    assert why in problem.why
    with pytest.raises(LabelError):
        source[0]


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    write_nyud(tmp_path, "npy")
    path = tmp_path / "depth" / "0001.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(LabelError, match="not a readable array"):
        sample(tmp_path, read=["depth"])
    path.write_bytes(b"")
    with pytest.raises(LabelError, match="not a readable array"):
        sample(tmp_path, read=["depth"])


def test_values_that_are_not_finite_are_no_labels(tmp_path: Path) -> None:
    write_nyud(tmp_path, "npy")
    depth, normals = room()
    wanted = torch.from_numpy(normals.copy()).permute(2, 0, 1)
    depth[5], normals[5], normals[6, :, 0] = np.nan, np.nan, np.nan
    write_npy(tmp_path / "depth" / "0001.npy", depth)
    write_npy(tmp_path / "normals" / "0001.npy", normals)
    found = wide(sample(tmp_path))
    assert (found["depth"][0, 5] == 0).all()
    assert (found["normals"][:, 5:7] == 0).all()  # two numbers are no direction
    assert torch.allclose(found["normals"][:, 7:], wanted[:, 7:], atol=0.01)  # nor do they say a frame


def test_another_label_space_is_refused(tmp_path: Path) -> None:
    write_nyud(tmp_path, "npy")
    with pytest.raises(SourceError, match="has semseg in nyu40, not in voc"):
        sample(tmp_path, tasks={"semseg": "voc"})
