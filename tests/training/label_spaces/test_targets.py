"""Target ids: from files of several spaces into one table of sets, and back."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.data import SourceConfig, build_source
from training.label_spaces import LABEL_SPACES, LabelSpace
from training.tasks import Task, make_task

UNION, NYU, VOC = (LABEL_SPACES[name] for name in ("objects_rooms", "nyu40", "voc"))


def make_room(root: Path, space: str, names: list[str]) -> SourceConfig:
    """A folder with one image whose label columns are the classes ``names``."""
    for folder in ("images", "semseg", "splits"):
        (root / folder).mkdir(parents=True)
    ids = [255 if name == "unknown" else LABEL_SPACES[space].labels.index(name) for name in names]
    row = np.repeat(np.array(ids, np.uint8), 4)
    Image.fromarray(np.tile(row, (8, 1))).save(root / "semseg" / "a.png")
    Image.new("RGB", (len(row), 8)).save(root / "images" / "a.jpg")
    (root / "splits" / "train.txt").write_text("a\n")
    return SourceConfig(kind="folder", root=str(root), tasks={"semseg": space})


def first_row(config: SourceConfig, tasks: list[Task], count: int, name: str = "semseg") -> list[int]:
    values: list[int] = build_source(config, tasks, (8, 4 * count), None)[0][name][0, ::4].tolist()
    return values


def meaning(space: LabelSpace, targets: list[int]) -> list[set[str] | None]:
    """The classes that each target id may be; None: no label."""
    members = space.targets.members
    return [
        None if target == 255 else {space.labels[index] for index in members[target].nonzero()[0]}
        for target in targets
    ]


def test_rooms_speak_voc(tmp_path: Path) -> None:
    names = ["wall", "chair", "television", "person", "table", "otherprop", "unknown"]
    tasks = [make_task("semseg", "voc"), make_task("parsing", "fashion")]
    config = make_room(tmp_path, "nyu40", names)
    found = meaning(VOC, first_row(config, tasks, len(names)))
    assert found[:4] == [{"background"}, {"chair"}, {"tvmonitor"}, {"person"}]
    assert found[4:] == [{"background", "diningtable"}, set(VOC.labels), None]
    assert first_row(config, tasks, len(names), "parsing") == [255] * len(names)


def test_two_sources_speak_one_vocabulary(tmp_path: Path) -> None:
    tasks = [make_task("semseg", "objects_rooms")]
    names = ["wall", "refridgerator", "television", "unknown"]
    room = meaning(UNION, first_row(make_room(tmp_path / "nyu", "nyu40", names), tasks, len(names)))
    assert room == [{"wall"}, {"refrigerator"}, {"television"}, None]
    names = ["background", "tvmonitor", "dog"]
    image = meaning(UNION, first_row(make_room(tmp_path / "voc", "voc", names), tasks, len(names)))
    assert image[1:] == [{"television"}, {"dog"}]
    assert image[0] is not None
    assert {"other", "wall", "lamp"} <= image[0]
    assert "person" not in image[0]


def test_what_surrounds_a_car_is_no_room(tmp_path: Path) -> None:
    tasks = [make_task("semseg", "objects_rooms")]
    names = ["background", "car", "unknown"]
    row = first_row(make_room(tmp_path, "voc", names), tasks, len(names))
    assert meaning(UNION, row) == [{"other"}, {"car"}, None]
    voc = UNION.targets.parts["voc"]
    assert voc.classes[row].tolist() == [0, VOC.labels.index("car"), 255]
    assert UNION.targets.classes[row].tolist() == [*voc.table[[0, 7]].tolist(), 255]
    speck = np.zeros((20, 20), np.uint8)
    speck[0, :4] = VOC.labels.index("car")  # 1 % of the pixels: not more
    assert voc.target_ids(speck)[5, 5] == voc.table[0]
    speck[0, 4] = VOC.labels.index("car")
    assert voc.target_ids(speck)[5, 5] != voc.table[0]


def test_ids_of_all_spaces_come_back() -> None:
    targets = UNION.targets
    assert targets.members[:55].tolist() == np.eye(55, dtype=bool).tolist()
    for name, part in targets.parts.items():
        count = len(LABEL_SPACES[name].labels)
        ids = np.array([*range(count), 255], np.uint8)
        assert part.classes[part.table[ids]].tolist() == ids.tolist()
        others = [other for other in targets.parts if other != name]
        for other in others:
            assert (targets.parts[other].classes[part.table[ids]] == 255).all()
    assert targets.own[:55].tolist() == list(range(55))
    assert (targets.own[55:] == 255).all()


def test_labels_that_mean_one_class_are_scored_in_a_space_that_is_coarser() -> None:
    small = LABEL_SPACES["nyu13"]
    rows = small.targets.parts["nyu40"].table
    named = [small.labels[index] for index in small.targets.own[rows[:40]]]
    assert named[NYU.labels.index("night stand")] == "furniture"
    assert named[NYU.labels.index("otherprop")] == "objects"
    assert small.targets.scored == ()
    table = VOC.targets.parts["nyu40"].table
    assert VOC.targets.own[table[NYU.labels.index("ceiling")]] == 0
    assert VOC.targets.own[table[NYU.labels.index("table")]] == 255


def test_where_nobody_is_there_are_no_parts(tmp_path: Path) -> None:
    names = ["background", "dog", "person", "unknown"]
    tasks = [make_task("semseg", "objects_rooms"), make_task("parsing", "fashion")]
    config = make_room(tmp_path, "voc", names).model_copy(update={"parts_from_people": True})
    assert first_row(config, tasks, len(names), "parsing") == [0, 0, 255, 255]


def test_nobody_is_sure_where_a_label_may_be_anything(tmp_path: Path) -> None:
    names = ["wall", "otherprop", "person"]
    tasks = [make_task("semseg", "voc"), make_task("parsing", "fashion")]
    config = make_room(tmp_path, "nyu40", names).model_copy(update={"parts_from_people": True})
    assert first_row(config, tasks, len(names), "parsing") == [0, 255, 255]


def test_a_true_parsing_label_is_never_replaced(tmp_path: Path) -> None:
    names = ["background", "person"]
    config = make_room(tmp_path, "voc", names)
    (tmp_path / "parsing").mkdir()
    Image.fromarray(np.full((8, 8), 3, np.uint8)).save(tmp_path / "parsing" / "a.png")
    spaces = {"semseg": "voc", "parsing": "fashion"}
    config = config.model_copy(update={"parts_from_people": True, "tasks": spaces})
    tasks = [make_task("semseg", "voc"), make_task("parsing", "fashion")]
    assert first_row(config, tasks, len(names), "parsing") == [3, 3]


def test_flips_and_crops_keep_target_ids() -> None:
    ids = torch.from_numpy(UNION.targets.parts["nyu40"].target_ids(np.arange(40, dtype=np.uint8)[None]))
    assert ids.dtype == torch.uint8
    assert ids.min() >= 55
