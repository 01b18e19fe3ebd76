import codecs
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from mtcp_serve.inference import images
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
from training.data.balance import sampling_factors
from training.data.encodings import read_image_file
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


@pytest.mark.parametrize("suffix", [".webp", ".TIFF", ".bmp", ".avif"])
def test_images_of_every_format_that_serving_reads(tmp_path: Path, suffix: str) -> None:
    write_split(tmp_path, ["a"])
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / f"a{suffix}"
    Image.fromarray(photo()).save(path)
    sample = build_source(folder(tmp_path), TASKS, FULL, None)[0]
    with images.read(path).image as expected:
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_an_image_of_another_format_and_two_of_one_id_are_named(tmp_path: Path) -> None:
    write_split(tmp_path, ["a"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.psd").touch()
    with pytest.raises(SourceError, match=r"a\.psd is of no format that is read \(JPEG, PNG, .*; convert it"):
        build_source(folder(tmp_path), TASKS, FULL, None)
    (tmp_path / "images" / "a.png").touch()
    (tmp_path / "images" / "a.jpg").touch()
    with pytest.raises(SourceError, match=r"a\.jpg and a\.png have one id; keep one"):
        build_source(folder(tmp_path), TASKS, FULL, None)


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_match_however_their_letters_are_composed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, listed: Any, on_disk: Any
) -> None:
    name = "\u00fcbung caf\u00e9"
    write_record(tmp_path, unicodedata.normalize(on_disk, name), all_maps())
    write_split(tmp_path, [unicodedata.normalize(listed, name)])
    source = build_source(folder(tmp_path), TASKS, FULL, None)
    assert source[0]["id"] == unicodedata.normalize(listed, name)
    assert (source[0]["semseg"][1:, :16] == 15).all()
    assert not caplog.records
    write_png(tmp_path / "images" / f"{unicodedata.normalize(listed, name)}.png", photo())
    with pytest.raises(SourceError, match="have one id; keep one"):
        build_source(folder(tmp_path), TASKS, FULL, None)


@pytest.mark.parametrize(("listed", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_prefixes_and_repetitions_too(tmp_path: Path, listed: Any, written: Any) -> None:
    name, prefix = (unicodedata.normalize(form, "K\u00fcche") for form in (listed, written))
    for image in (f"{name} 1", "b"):
        write_record(tmp_path, image, {"semseg": np.full((24, 32), 255, np.uint8)})
    write_split(tmp_path, [f"{name} 1", "b"])
    config = folder(tmp_path, repeat=[(prefix, 3.0)], shows_no_class=[prefix])
    source = build_source(config, TASKS, FULL, None)
    assert list(sampling_factors(source)) == [3, 1]
    assert (source[0]["semseg"] == 0).all()
    assert (source[1]["semseg"] == 255).all()
    write_split(tmp_path, [f"{name} 1", "b", f"{prefix} 1"])
    with pytest.raises(SourceError, match="twice"):
        build_source(config, TASKS, FULL, None)


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


def test_a_large_image_is_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.jpg", photo(480, 640))
    enough = read_image_file(tmp_path / "images" / "a.jpg", (48, 64))
    assert enough.shape == (3, 60, 80)
    assert read_image_file(tmp_path / "images" / "a.jpg", (300, 400)).shape == (3, 480, 640)


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
        ("disparity", np.ones((32, 24), np.uint8), "is 24x32, its image 32x24: other proportions"),
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


def test_small_maps_are_stretched_to_the_image(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps(12, 16))
    write_split(tmp_path, ["a"])
    sample = build_source(folder(tmp_path), TASKS, FULL, None)[0]
    assert (sample["semseg"][2:, :16] == 15).all()
    assert torch.allclose(sample["depth"][0, 2:, :15].float(), torch.tensor(1.5), rtol=HALF)
    assert (sample["depth"][0, :2] == 0).all()


def test_images_of_several_formats_are_found(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.png"):
        write_png(tmp_path / "images" / name, photo())
    write_split(tmp_path, ["a", "b", "c"])
    source = build_source(folder(tmp_path), TASKS, SIZE, None)
    assert [source[index]["image"].shape for index in range(3)] == [(3, *SIZE)] * 3


def test_images_are_turned_upright(tmp_path: Path) -> None:
    """A phone's image says by EXIF how it was held; its labels are drawn on what people see."""
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the file is the view turned left
    Image.fromarray(photo(16, 32)).save(tmp_path / "images" / "a.jpg", exif=exif, quality=95)
    image = read_image_file(tmp_path / "images" / "a.jpg", (64, 64))
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


def read_both(path: Path) -> tuple[torch.Tensor, np.ndarray]:
    """What training and what serving see of a file, [3, H, W]."""
    return read_image_file(path, (64, 64)), np.array(images.read(path).image).transpose(2, 0, 1)


def save_wide_grey(path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)).save(path)


def save_alpha(path: Path) -> None:
    pixels = np.zeros((24, 32, 4), np.uint8)
    pixels[:, 16:, 3] = 255
    Image.fromarray(pixels).save(path)


def save_cmyk(path: Path) -> None:
    Image.fromarray(photo()).convert("CMYK").save(path.with_suffix(".jpg"), quality=95)
    path.with_suffix(".jpg").rename(path)


def save_turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(photo()).save(path, exif=exif)


@pytest.mark.parametrize(
    ("save", "corner"),
    [(save_wide_grey, (0, 0, 0)), (save_alpha, (255, 255, 255)), (save_cmyk, None), (save_turned, None)],
)
def test_training_sees_what_serving_sees(
    tmp_path: Path, save: Callable[[Path], None], corner: tuple[int, int, int] | None
) -> None:
    save(tmp_path / "a.png")
    seen, served = read_both(tmp_path / "a.png")
    assert torch.equal(seen, torch.from_numpy(served))
    if corner is not None:
        assert tuple(seen[:, 0, 0].tolist()) == corner
    if save is save_wide_grey:
        assert seen[0, -1, -1] == 255
        assert 120 < int(seen[0, 12, 16]) < 140  # 16 bits are scaled, not cut


def test_an_image_that_serving_refuses_is_a_label_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image at all")
    with pytest.raises(LabelError, match=r"a\.png: not a readable image"):
        read_image_file(tmp_path / "a.png", SIZE)


def test_the_camera_is_the_sources_else_the_exifs_else_assumed(tmp_path: Path) -> None:
    tasks = [make_task("depth"), make_task("normals")]
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 18  # focal length in 35 mm film, whose diagonal is 43.27 mm
    write_record(tmp_path, "plain", {})
    Image.fromarray(photo(30, 40)).save(tmp_path / "images" / "phone.jpg", exif=exif)
    write_split(tmp_path, ["plain", "phone"])
    plain, phone = (build_source(folder(tmp_path), tasks, SIZE, None)[index]["focal"] for index in (0, 1))
    assert plain.tolist() == pytest.approx([0.5 / np.tan(np.pi / 6), 0.5 / np.tan(np.pi / 6) * 32 / 24])
    assert phone.tolist() == pytest.approx([18 / 43.27 * 50 / 40, 18 / 43.27 * 50 / 30], rel=1e-3)
    given = build_source(folder(tmp_path, focal=(0.8, 1.1)), tasks, SIZE, None)[1]["focal"]
    assert given.tolist() == pytest.approx([0.8, 1.1])


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfa\r\nmy dog\r\n\r\n",
        b"a\n  my dog \n",
        "a\nmy dog\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "a\nmy dog".encode("utf-16-be"),
    ],
    ids=["utf-8 with mark", "spaces around", "utf-16", "utf-16 big-endian"],
)
def test_split_files_of_any_editor_are_read(tmp_path: Path, text: bytes) -> None:
    write_record(tmp_path, "a", {})
    write_record(tmp_path, "my dog", {"semseg": all_maps()["semseg"]})
    write_split(tmp_path, [])
    (tmp_path / "splits" / "train.txt").write_bytes(text)
    source = build_source(folder(tmp_path), TASKS, SIZE, None)
    assert list(source.reader.ids) == ["a", "my dog"]
    assert (source[1]["semseg"] != 255).any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a\n".encode("utf-16-le"),
            "zero bytes, it may be UTF-16 without a byte order mark; save it as UTF-8",
        ),
        (b"caf\xe9\n", r"not text in UTF-8 or UTF-16 \(.* at byte 3\); save it as UTF-8"),
        (b"a b\n", "the first is .*; one id a line"),
        (b"a.png\n", "the first is .*; ids are file names without their ending"),
    ],
)
def test_split_files_that_are_no_list_of_ids_are_named(tmp_path: Path, text: bytes, words: str) -> None:
    write_record(tmp_path, "a", {})
    write_record(tmp_path, "b", {})
    write_split(tmp_path, [])
    (tmp_path / "splits" / "train.txt").write_bytes(text)
    with pytest.raises(SourceError, match=rf"(?s)train.*{words}|{words}"):
        build_source(folder(tmp_path), TASKS, SIZE, None)


def test_labels_with_a_loud_ending_are_read(tmp_path: Path) -> None:
    write_record(tmp_path, "a", {"semseg": all_maps()["semseg"]})
    (tmp_path / "semseg" / "a.png").rename(tmp_path / "semseg" / "a.PNG")
    write_split(tmp_path, ["a"])
    assert (build_source(folder(tmp_path), TASKS, SIZE, None)[0]["semseg"] != 255).any()


def test_labels_of_no_image_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("p0", "p1"):
        write_record(tmp_path, name, {"semseg": all_maps()["semseg"]})
    write_split(tmp_path, ["p0"])
    build_source(folder(tmp_path), TASKS, SIZE, None)
    assert not caplog.text  # the label of an image of another split is none of this one's business
    folder_ = tmp_path / "semseg"
    (folder_ / "p1.png").rename(folder_ / "p1_mask.png")
    build_source(folder(tmp_path), TASKS, SIZE, None)
    assert "1 of 2 files in" in caplog.text
    assert "(the first is p1_mask.png)" in caplog.text
    (folder_ / "p0.png").rename(folder_ / "p0_mask.png")
    with pytest.raises(SourceError, match=r"2 of 2 files in .*semseg match no image .*p0_mask\.png.*ends in"):
        build_source(folder(tmp_path), TASKS, SIZE, None)


def test_what_shows_no_class_is_background_where_its_file_names_none(tmp_path: Path) -> None:
    unsure, person = np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)
    unsure[:, :16], person[:, :16], person[0] = 255, 15, 255
    maps = {"coyote_1": unsure, "coyote_2": person, "dog_1": unsure}
    for name, semseg in maps.items():
        write_record(tmp_path, name, {"semseg": semseg, "saliency": unsure})
    write_split(tmp_path, list(maps))
    source = build_source(folder(tmp_path, shows_no_class=["coyote_"]), TASKS, FULL, None)
    coyote, with_person, dog = (source[index]["semseg"] for index in range(3))
    assert (coyote == 0).all()
    assert torch.equal(with_person, torch.from_numpy(person))
    assert torch.equal(dog, torch.from_numpy(unsure))


def test_what_shows_no_class_means_the_same_in_another_vocabulary(tmp_path: Path) -> None:
    write_record(tmp_path, "coyote", {"semseg": np.full((24, 32), 255, np.uint8)})
    write_record(tmp_path, "street", {"semseg": np.zeros((24, 32), np.uint8)})
    write_split(tmp_path, ["coyote", "street"])
    tasks = (make_task("semseg", "objects_rooms"),)
    config = SourceConfig(kind="folder", root=str(tmp_path), tasks={"semseg": "voc"}, shows_no_class=["coy"])
    source = build_source(config, tasks, FULL, None)
    coyote, street = source[0], source[1]
    assert torch.equal(coyote["semseg"], street["semseg"])
    assert (coyote["semseg"] != 255).all()


def test_a_prefix_without_an_image_is_said_and_a_source_without_semantics_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    build_source(folder(tmp_path, shows_no_class=["b"]), TASKS, FULL, None)
    assert "no id begins as shows_no_class says" in caplog.text
    for wrong in ({"kind": "scenes"}, {"kind": "folder", "root": "x", "tasks": {"parsing": "fashion"}}):
        with pytest.raises(ValidationError, match="shows_no_class"):
            SourceConfig(**wrong, shows_no_class=["b"])
