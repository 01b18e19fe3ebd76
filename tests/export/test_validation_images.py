"""Images for judging parity."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import export.validation_images
from export.errors import ExportError
from export.validation_images import MOST, load_images


def test_the_standard_images() -> None:
    images = load_images(None, 48, 64)
    assert list(images) == ["astronaut", "coffee", "chelsea"]
    assert all(image.shape == (48, 64, 3) and image.dtype == np.uint8 for image in images.values())


def test_procedural_scenes_stand_in_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.validation_images, "find_spec", lambda name: None)
    images = load_images(None, 48, 64)
    assert len(images) == 3
    assert all(image.shape == (48, 64, 3) and image.std() > 1 for image in images.values())


def test_a_folder_is_sampled_evenly(tmp_path: Path) -> None:
    for index in range(2 * MOST):
        Image.new("L", (8, 8), index).save(tmp_path / f"{index:03}.png")
    (tmp_path / "notes.txt").write_text("no image")
    images = load_images(tmp_path, 4, 6)
    assert [int(image[0, 0, 0]) for image in images.values()] == list(range(0, 2 * MOST, 2))
    assert images["000.png"].shape == (4, 6, 3)


def test_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10), "red")
    picture.paste("blue", (0, 0, 10, 10))
    exif = picture.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    image = load_images(tmp_path, 10, 20)["turned.png"]
    assert image[5, 2].tolist() == [255, 0, 0]
    assert image[5, 17].tolist() == [0, 0, 255]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ExportError, match=r"broken\.jpg"):
        load_images(tmp_path, 4, 6)


def test_an_image_too_large_and_ids_that_are_no_text_are_named(tmp_path: Path) -> None:
    Image.new("L", (20_000, 1)).save(tmp_path / "huge.png")
    with pytest.raises(ExportError, match=r"huge\.png is not a list of ids"):
        load_images(tmp_path, 4, 6, tmp_path / "huge.png")
    with pytest.raises(ExportError, match=r"huge\.png cannot be read: the image is 20000 x 1 pixels"):
        load_images(tmp_path, 4, 6)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no image"):
        load_images(tmp_path, 4, 6)


def test_a_split_chooses_the_images(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    split = tmp_path / "val.txt"
    split.write_text("c\na\nelsewhere\n")
    assert list(load_images(tmp_path, 4, 6, split)) == ["a.png", "c.png"]
    split.write_text("elsewhere\n")
    with pytest.raises(ExportError, match=r"that .*val\.txt lists"):
        load_images(tmp_path, 4, 6, split)


def test_images_are_read_as_the_server_reads_them(tmp_path: Path) -> None:
    """Alpha on white, 16-bit grey scaled and not clipped."""
    clear = np.zeros((4, 6, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(np.full((4, 6), 32768, np.uint16)).save(tmp_path / "grey.png")
    images = load_images(tmp_path, 4, 6)
    assert (images["clear.png"] == 255).all()
    assert (images["grey.png"] == 128).all()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_ids_are_lines_as_in_training(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a room", "b", "room"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    ids = tmp_path / "val.txt"
    ids.write_text("a room\n\n b \n", encoding=encoding)
    assert sorted(load_images(folder, 8, 8, ids)) == ["a room.png", "b.png"]


def test_ids_of_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="give both"):
        load_images(None, 8, 8, tmp_path / "val.txt")
