from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tests.training.data.trees import (
    HALF,
    SIZE,
    TASKS,
    all_maps,
    folder,
    photo,
    wide,
    write_png,
    write_record,
    write_split,
)
from training.data import LabelError, SourceConfig, SourceError, build_source
from training.data.encodings import read_photo
from training.tasks import make_task

FULL = (24, 32)


def test_every_encoding_comes_back(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    sample = build_source(folder(tmp_path), TASKS, FULL, None)[0]
    assert all(sample[name].dtype == torch.float16 for name in ("saliency", "depth", "disparity", "normals"))
    sample = wide(sample)

    assert sample["id"] == "a"
    assert torch.equal(sample["image"], torch.from_numpy(photo()).permute(2, 0, 1))
    for name, label, other in (("semseg", 15, 0), ("parsing", 3, 0)):
        assert sample[name].dtype == torch.uint8
        assert sample[name].shape == FULL
        assert (sample[name][0] == 255).all()
        assert (sample[name][1:, :16] == label).all()
        assert (sample[name][1:, 16:] == other).all()
    for name, left, right, first in (
        ("saliency", 1.0, 0.2, 1.0),
        ("depth", 1.5, 4.0, 0.0),
        ("disparity", 1.0, 0.2, 0.0),
    ):
        assert sample[name].shape == (1, *FULL)
        assert sample[name][0, 0, 0] == first
        assert torch.allclose(sample[name][0, 1:, :16], torch.tensor(left), rtol=HALF)
        assert torch.allclose(sample[name][0, 1:, 16:], torch.tensor(right), rtol=HALF)
    normals = sample["normals"]
    assert (normals[:, 0] == 0).all()
    assert torch.allclose(normals[:, 1:, 0], torch.tensor([0.0, 0.0, 1.0])[:, None], atol=0.006)
    assert torch.allclose(normals[:, 1:, -1], torch.tensor([1.0, 0.0, 0.0])[:, None], atol=0.006)
    assert torch.allclose(normals[:, 1:].norm(dim=0), torch.ones(23, 32), rtol=HALF)


def test_missing_files_are_missing_labels(tmp_path: Path) -> None:
    write_record(tmp_path, "a", {})
    write_split(tmp_path, ["a"])
    sample = build_source(folder(tmp_path), TASKS, SIZE, None)[0]
    for name, value, dtype, shape in (
        ("semseg", 255, torch.uint8, SIZE),
        ("parsing", 255, torch.uint8, SIZE),
        ("saliency", -1, torch.float16, (1, *SIZE)),
        ("depth", 0, torch.float16, (1, *SIZE)),
        ("disparity", 0, torch.float16, (1, *SIZE)),
        ("normals", 0, torch.float16, (3, *SIZE)),
    ):
        assert sample[name].dtype == dtype
        assert sample[name].shape == shape
        assert (sample[name] == value).all()


def test_a_sample_has_the_maps_of_the_networks_tasks_only(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    source = build_source(folder(tmp_path), [make_task("saliency")], SIZE, None)
    assert sorted(source[0]) == ["id", "image", "saliency"]
    source = build_source(folder(tmp_path), [make_task("depth")], SIZE, None)
    assert sorted(source[0]) == ["depth", "disparity", "id", "image"]


def test_a_label_space_without_a_mapping_is_not_read_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    config = folder(tmp_path, tasks={"semseg": "cityscapes", "parsing": "fashion"}, name="streets")
    sample = build_source(config, TASKS, SIZE, None)[0]
    assert (sample["semseg"] == 255).all()
    assert (sample["parsing"] != 255).any()
    assert "'streets'" in caplog.text
    assert "'voc' has no mapping from 'cityscapes'" in caplog.text


def test_read_chooses_the_maps(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    sample = build_source(folder(tmp_path, tasks={}, read=["depth", "normals"]), TASKS, SIZE, None)[0]
    assert (sample["depth"] > 0).any()
    assert (sample["normals"] != 0).any()
    for name, value in (("semseg", 255), ("parsing", 255), ("disparity", 0), ("saliency", -1)):
        assert (sample[name] == value).all()


def test_palette_images_hold_class_ids(tmp_path: Path) -> None:
    write_record(tmp_path, "a", {})
    write_split(tmp_path, ["a"])
    ids = Image.fromarray(np.full((24, 32), 7, np.uint8)).convert("P")
    ids.putdata([7] * (24 * 32))
    (tmp_path / "semseg").mkdir()
    ids.save(tmp_path / "semseg" / "a.png")
    assert (build_source(folder(tmp_path), TASKS, SIZE, None)[0]["semseg"] == 7).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"root": ""}, ["has no root", "set root"]),
        ({"root": "{root}/absent"}, ["{root}/absent", "not a folder"]),
        ({"split": "val"}, ["{root}/splits/val.txt", "the folder has empty, holes, train, twice"]),
        ({"split": "empty"}, ["{root}/splits/empty.txt", "lists no ids"]),
        ({"split": "twice"}, ["{root}/splits/twice.txt", "'a' twice"]),
        ({"split": "holes"}, ["1 id(s)", "{root}/images/b.jpg"]),
        ({"tasks": {}}, ["{root}/semseg", "label space", "voc"]),
        ({"read": ["depth"]}, ["told to read 'depth'", "{root}/depth"]),
        ({"kind": "tar"}, ["'tar'", "folder"]),
    ],
)
def test_settings_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, object], words: list[str]
) -> None:
    write_record(tmp_path, "a", {"semseg": all_maps()["semseg"]})
    for split, ids in (("train", ["a"]), ("empty", []), ("twice", ["a", "a"]), ("holes", ["a", "b"])):
        write_split(tmp_path, ids, split)
    settings = {
        key: value.format(root=tmp_path) if isinstance(value, str) else value for key, value in change.items()
    }
    config = SourceConfig.model_validate({**folder(tmp_path).model_dump(), **settings})
    with pytest.raises(SourceError) as caught:
        build_source(config, TASKS, SIZE, None)
    for word in words:
        assert word.format(root=tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": {"semseg": "coco"}}, "unknown label space 'coco'; known: cityscapes, .*voc"),
        ({"tasks": {"contours": "voc"}}, "unknown task 'contours'; known: semseg"),
        ({"read": ["depht"]}, "unknown map 'depht'; known: .*depth.*disparity"),
        ({"splits": "train"}, "splits"),
        ({"weight": -1.0}, "weight"),
    ],
)
def test_misspelt_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SourceConfig.model_validate({"kind": "folder", **settings})


def test_maps_that_the_network_does_not_have_may_be_named(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    config = folder(tmp_path, read=["depth", "saliency"])
    assert build_source(config, [make_task("saliency")], SIZE, None).reader.labels[0].keys() == {"saliency"}


def test_a_large_photo_is_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.jpg", photo(480, 640))
    enough = read_photo(tmp_path / "images" / "a.jpg", (48, 64))
    assert enough.shape == (3, 60, 80)
    assert read_photo(tmp_path / "images" / "a.jpg", (300, 400)).shape == (3, 480, 640)


def test_a_folder_without_images_or_splits_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"splits/train\.txt does not exist; write one id a line"):
        build_source(folder(tmp_path), TASKS, SIZE, None)
    write_split(tmp_path, ["a"])
    with pytest.raises(SourceError, match="images does not exist"):
        build_source(folder(tmp_path), TASKS, SIZE, None)


@pytest.mark.parametrize(
    ("name", "pixels", "why"),
    [
        ("semseg", np.full((24, 32), 21, np.uint8), "class ids 21: its label space has 0..20"),
        ("parsing", np.full((24, 32), 15, np.uint8), "class ids 15: its label space has 0..7"),
        ("semseg", np.zeros((24, 32), np.uint16), "is 16-bit grey, a LabelMap file must be 8-bit grey"),
        ("depth", np.ones((24, 32), np.uint8), "is 8-bit grey, a DepthMap file must be 16-bit grey"),
        ("normals", np.ones((24, 32), np.uint8), "is 8-bit grey, a NormalsMap file must be 8-bit RGB"),
        ("saliency", np.ones((24, 32, 3), np.uint8), "is 8-bit RGB, a SaliencyMap file must be 8-bit grey"),
        ("disparity", np.ones((32, 24), np.uint8), "is 24x32, its photo 32x24: other proportions"),
    ],
)
def test_wrong_label_files_are_named(tmp_path: Path, name: str, pixels: np.ndarray, why: str) -> None:
    write_record(tmp_path, "a", {name: pixels})
    write_split(tmp_path, ["a"])
    source = build_source(folder(tmp_path), TASKS, SIZE, None)
    with pytest.raises(LabelError) as caught:
        source[0]
    assert caught.value.path == tmp_path / name / "a.png"
    assert why in caught.value.why
    assert str(tmp_path / name / "a.png") in str(caught.value)


def test_small_maps_are_stretched_to_the_photo(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps(12, 16))
    write_split(tmp_path, ["a"])
    sample = build_source(folder(tmp_path), TASKS, FULL, None)[0]
    assert (sample["semseg"][2:, :16] == 15).all()
    assert torch.allclose(sample["depth"][0, 2:, :15].float(), torch.tensor(1.5), rtol=HALF)
    assert (sample["depth"][0, :2] == 0).all()


def test_photos_of_several_formats_are_found(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.png"):
        write_png(tmp_path / "images" / name, photo())
    write_split(tmp_path, ["a", "b", "c"])
    source = build_source(folder(tmp_path), TASKS, SIZE, None)
    assert [source[index]["image"].shape for index in range(3)] == [(3, *SIZE)] * 3


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    """A phone's photo says by EXIF how it was held; its labels are drawn on what people see."""
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the file is the view turned left
    Image.fromarray(photo(16, 32)).save(tmp_path / "images" / "a.jpg", exif=exif, quality=95)
    image = read_photo(tmp_path / "images" / "a.jpg", (64, 64))
    assert image.shape == (3, 32, 16)
    assert image[0, 0].float().mean() < 40  # red grew with the column of the file: now from top to bottom
    assert image[0, -1].float().mean() > 215


def test_alpha_says_where_a_probability_is_not_known(tmp_path: Path) -> None:
    grey, alpha = np.full((24, 32), 51, np.uint8), np.full((24, 32), 255, np.uint8)
    alpha[:12] = 0
    for name in ("saliency", "edges"):
        write_record(tmp_path, "a", {name: np.stack([grey, alpha], -1)})
    write_split(tmp_path, ["a"])
    tasks = [make_task("saliency"), make_task("edges")]
    sample = build_source(folder(tmp_path), tasks, FULL, None)[0]
    for name in ("saliency", "edges"):
        assert (sample[name][0, :12] == -1).all()
        assert torch.allclose(sample[name][0, 12:].float(), torch.tensor(0.2), rtol=HALF)
