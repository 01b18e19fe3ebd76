"""Labels read from another label space, and parsing implied by semantics."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.data import SourceConfig, build_source
from training.data.translate import SAME_THING, translation
from training.tasks import LABEL_SPACES, make_task

TASKS = (make_task("semseg", "voc"), make_task("parsing", "fashion"))
NYU, VOC = LABEL_SPACES["nyu40"].labels, LABEL_SPACES["voc"].labels


def make_room(root: Path, space: str, names: list[str]) -> SourceConfig:
    """A folder with one photo whose label columns are the classes ``names``."""
    for folder in ("images", "semseg", "splits"):
        (root / folder).mkdir(parents=True)
    ids = [255 if name == "unknown" else LABEL_SPACES[space].labels.index(name) for name in names]
    row = np.repeat(np.array(ids, np.uint8), 4)
    Image.fromarray(np.tile(row, (8, 1))).save(root / "semseg" / "a.png")
    Image.new("RGB", (len(row), 8)).save(root / "images" / "a.jpg")
    (root / "splits" / "train.txt").write_text("a\n")
    return SourceConfig(kind="folder", root=str(root), tasks={"semseg": space})


def first_row(config: SourceConfig, names: list[str], task: str) -> list[int]:
    source = build_source(config, TASKS, (8, 4 * len(names)), None)
    values: list[int] = source[0][task][0, ::4].tolist()
    return values


def test_rooms_speak_voc_where_the_words_agree(tmp_path: Path) -> None:
    names = ["wall", "chair", "sofa", "television", "person", "table", "otherprop", "unknown"]
    config = make_room(tmp_path, "nyu40", names).model_copy(update={"translate": True})
    expected = [0, 9, 18, 20, 15, 255, 255, 255]
    assert first_row(config, names, "semseg") == expected
    assert first_row(config, names, "parsing") == [255] * len(names)


def test_another_space_is_not_read_unless_asked(tmp_path: Path) -> None:
    config = make_room(tmp_path, "nyu40", ["wall", "chair"])
    assert first_row(config, ["wall", "chair"], "semseg") == [255, 255]


def test_where_nobody_is_there_are_no_parts(tmp_path: Path) -> None:
    names = ["background", "dog", "person", "unknown"]
    config = make_room(tmp_path, "voc", names).model_copy(update={"parts_from_people": True})
    assert first_row(config, names, "parsing") == [0, 0, 255, 255]
    assert first_row(config, names, "semseg") == [0, 12, 15, 255]


def test_a_true_parsing_label_is_never_replaced(tmp_path: Path) -> None:
    names = ["background", "person"]
    config = make_room(tmp_path, "voc", names)
    (tmp_path / "parsing").mkdir()
    Image.fromarray(np.full((8, 8), 3, np.uint8)).save(tmp_path / "parsing" / "a.png")
    tasks = {"semseg": "voc", "parsing": "fashion"}
    config = config.model_copy(update={"parts_from_people": True, "tasks": tasks})
    assert first_row(config, names, "parsing") == [3, 3]


def test_tables_name_real_classes_and_only_those_with_one_exist() -> None:
    for (theirs, ours), same in SAME_THING.items():
        assert same.keys() <= set(LABEL_SPACES[theirs].labels)
        assert {name for name in same.values() if name} <= set(LABEL_SPACES[ours].labels)
    table = translation("nyu40", "voc")
    assert table is not None
    assert table[NYU.index("ceiling")] == VOC.index("background")
    assert table[255] == 255
    assert translation("voc", "nyu40") is None
    assert torch.equal(table[40:], torch.full((216,), 255, dtype=torch.uint8))
