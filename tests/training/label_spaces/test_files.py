"""Label spaces as files: what is in the shipped ones, and how a wrong one is named."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

from training.data import LabelError, SourceConfig, SourceError, build_source
from training.label_spaces import LABEL_SPACES, LabelSpaceError, bit_palette
from training.label_spaces.files import read_label_space
from training.tasks import make_task

THEIRS = {"labels": ["background", "dog", "sofa"]}


def write(root: Path, **content: object) -> Path:
    """Two spaces beside each other: `theirs`, and `ours` with the given content."""
    (root / "theirs.yaml").write_text(yaml.safe_dump(THEIRS))
    path = root / "ours.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def mapping(classes: dict[str, object], **settings: object) -> dict[str, object]:
    return {"theirs": {"classes": classes, **settings}}


@pytest.mark.parametrize("name", LABEL_SPACES)
def test_shipped_spaces_can_be_used(name: str) -> None:
    space = LABEL_SPACES[name]
    assert space.name == name
    assert len(set(space.labels)) == len(space.labels) == len(space.palette)
    targets = space.targets
    assert targets.members.any(axis=1).all(), "a label that stands for nothing"
    for part in targets.parts.values():
        assert part.members.any(axis=0).all(), "a class that no label covers"


def test_objects_and_rooms_are_both_vocabularies() -> None:
    union, voc, nyu = (LABEL_SPACES[name] for name in ("objects_rooms", "voc", "nyu40"))
    assert union.targets.scored == ("voc", "nyu40")
    assert union.palette[:21] == voc.palette
    parts = union.targets.parts

    def means(space: str, label: str) -> list[str]:
        row = parts[space].members[LABEL_SPACES[space].labels.index(label)]
        return [union.labels[index] for index in row.nonzero()[0]]

    for label in ("chair", "sofa", "person"):
        assert means("voc", label) == means("nyu40", label) == [label]
    assert means("voc", "tvmonitor") == means("nyu40", "television") == ["television"]
    assert means("voc", "diningtable") == means("nyu40", "table") == ["table"]
    rooms = set(means("voc", "background"))
    assert {"other", "wall", "floor", "ceiling", "bookshelf"} <= rooms
    assert not rooms & {"chair", "person", "table", "car"}
    things = set(means("nyu40", "otherprop"))
    assert {"other", "car", "bottle", "dog", "potted plant"} <= things
    assert not things & {"wall", "chair", "person", "box"}
    assert len(union.labels) == 1 + 20 + 40 - 5 - 1  # five merged, and otherprop is other and objects
    assert nyu.labels.index("otherprop") == 39


def test_colours_are_those_of_voc_unless_given(tmp_path: Path) -> None:
    assert read_label_space(write(tmp_path, labels=["a", "b"])).palette == bit_palette(2)
    given = ["#102030", "#405060"]
    assert read_label_space(write(tmp_path, labels=["a", "b"], palette=given)).palette == tuple(given)


def test_namesakes_need_no_line_and_others_take_the_rest(tmp_path: Path) -> None:
    labels = ["nothing", "dog", "furniture"]
    space = read_label_space(
        write(tmp_path, labels=labels, mappings=mapping({"background": "nothing"}, others="furniture"))
    )
    assert space.targets.parts["theirs"].members.tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"mappings": mapping({"backgroud": "rest"})}, "unknown class 'backgroud'.*background, dog, sofa"),
        ({"mappings": mapping({"background": "wal"})}, "unknown class 'wal'.*wall, dog"),
        ({"mappings": mapping({"background": "wall"})}, "says nothing about 'sofa'; list it"),
        ({"mappings": mapping({"background": "dog"}, others="dog")}, r"do not cover 1 of ours \(wall\)"),
        ({"mappings": mapping({"background": "rest", "sofa": "rest"})}, "rest can be one class only"),
        ({"mappings": mapping({"background": "rest", "sofa": "wall"})}, "nothing is left for 'background'"),
        ({"mappings": mapping({"background": [], "sofa": "any"})}, "stands for no class"),
        (
            {
                "mappings": mapping(
                    {"background": "rest", "sofa": "dog"}, contexts=[{"shows": [], "classes": {}}]
                )
            },
            "a context shows nothing",
        ),
        (
            {"mappings": {"thiers": {"classes": {}}}},
            "mappings.thiers is not another label space; there are .*theirs",
        ),
        ({"mappings": mapping({}, class_names={})}, "mappings.theirs.class_names: Extra inputs"),
        ({"labels": ["wall", "wall"]}, "name 'wall' twice"),
        ({"labels": []}, "labels are empty"),
        ({"labels": ["rest", "wall"]}, "'rest' is not a name for a class"),
        ({"palette": ["#000000"]}, "palette has 1 colours for 2 labels"),
        ({"colours": []}, "colours: Extra inputs"),
        ({"labels": [f"c{index}" for index in range(256)]}, "256 targets, a label map holds 255"),
    ],
)
def test_a_wrong_file_is_named_with_what_to_do(
    tmp_path: Path, content: dict[str, object], words: str
) -> None:
    path = write(tmp_path, **{"labels": ["wall", "dog"], **content})
    with pytest.raises(LabelSpaceError, match=rf"ours\.yaml: .*{words}"):
        read_label_space(path)


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, labels=["a"])
    path.write_bytes(b"labels: [\xff")
    with pytest.raises(LabelSpaceError, match=r"ours\.yaml: not a readable label space"):
        read_label_space(path)


def test_a_task_names_the_spaces_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"needs a label space out of cityscapes, .*objects_rooms.*; got 'coco'"
    ):
        make_task("semseg", "coco")


def test_a_space_of_your_own_is_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "garden.yaml"
    path.write_text(
        "labels: [ground, plant]\nmappings: {voc: {classes: {pottedplant: plant}, others: ground}}"
    )
    task = make_task("semseg", str(path))
    assert task.space is not None
    assert (task.space.name, task.channels) == ("garden", 2)
    assert task.space is LABEL_SPACES[str(path)]
    assert task.space.targets.parts["voc"].members.sum(axis=0).tolist() == [20, 1]


def test_paths_that_are_no_space_of_your_own_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.yaml: not a readable label space"):
        make_task("semseg", str(tmp_path / "absent.yaml"))
    (tmp_path / "voc.yaml").write_text("labels: [a]")
    with pytest.raises(ValueError, match=r"voc\.yaml: a label space that ships has this name"):
        make_task("semseg", str(tmp_path / "voc.yaml"))


def one_image(root: Path, space: Path) -> SourceConfig:
    """A folder of one image, all of class 1 in ``space``."""
    for folder in ("images", "semseg", "splits"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "images" / "a.png")
    Image.new("L", (8, 8), 1).save(root / "semseg" / "a.png")
    (root / "splits" / "train.txt").write_text("a\n")
    return SourceConfig(kind="folder", root=str(root), tasks={"semseg": str(space)})


def test_images_labelled_in_your_own_space_are_read(tmp_path: Path) -> None:
    space = tmp_path / "garden.yaml"
    space.write_text("labels: [ground, plant]")
    config = one_image(tmp_path, space)
    sample = build_source(config, [make_task("semseg", str(space))], (8, 8), None)[0]
    assert (sample["semseg"] == 1).all()
    Image.new("L", (8, 8), 2).save(tmp_path / "semseg" / "a.png")
    with pytest.raises(LabelError, match=r"class ids 2: its label space has 0\.\.1"):
        _ = build_source(config, [make_task("semseg", str(space))], (8, 8), None)[0]


def beside(root: Path, name: str, text: str) -> Path:
    root.mkdir(exist_ok=True)
    path = root / f"{name}.yaml"
    path.write_text(text)
    return path


def test_files_of_one_name_are_one_space_only_with_the_same_labels(tmp_path: Path) -> None:
    ours = beside(tmp_path / "mine", "classes", "labels: [ground, dog, person]")
    same = beside(tmp_path / "copied", "classes", "labels: [ground, dog, person]\npalette: null")
    task = make_task("semseg", str(ours))
    sample = build_source(one_image(tmp_path / "photos", same), [task], (8, 8), None)[0]
    assert (sample["semseg"] == 1).all()
    other = beside(tmp_path / "theirs", "classes", "labels: [ground, person, dog]")
    with pytest.raises(SourceError, match=r"theirs/classes\.yaml has other labels than .*mine/classes\.yaml"):
        build_source(one_image(tmp_path / "more", other), [task], (8, 8), None)


def test_a_mapped_space_is_the_one_that_was_mapped(tmp_path: Path) -> None:
    beside(tmp_path / "mine", "pets", "labels: [nothing, cat]")
    mapping = "mappings: {pets: {classes: {nothing: any}}}"
    task = make_task("semseg", str(beside(tmp_path / "mine", "classes", f"labels: [ground, cat]\n{mapping}")))
    other = beside(tmp_path / "theirs", "pets", "labels: [cat, nothing]")
    with pytest.raises(
        SourceError, match=r"theirs/pets\.yaml has other labels than the pets that .*classes\.yaml maps"
    ):
        build_source(one_image(tmp_path / "photos", other), [task], (8, 8), None)
