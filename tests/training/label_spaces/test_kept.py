"""A checkpoint keeps its label spaces: their files may be edited, or gone, and nothing is renamed by that."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.tiny import RUN
from training import checkpoint
from training.checkpoint import CheckpointError, load_network
from training.config import RunConfig, load_config, override
from training.data import SourceError
from training.evaluation import validation_sources
from training.label_spaces import LABEL_SPACES, LabelSpaceError
from training.label_spaces.kept import from_plain, to_plain
from training.model import MTCP
from training.model.pretrained import initialise
from training.parts import build_network
from training.trainer import LAST, Trainer

SPACE = "mine/classes.yaml"
LABELS = ("ground", "dog", "person")
PETS = "mappings: {pets: {classes: {nothing: [ground, person], dog: dog}}}\n"


def write_space(labels: tuple[str, ...], more: str = PETS) -> None:
    """Write the file, and read it as in a new process from now on."""
    Path(SPACE).write_text(f"labels: [{', '.join(labels)}]\n{more}")
    LABEL_SPACES._space.cache_clear()  # type: ignore[attr-defined]


def settings(*overrides: str) -> RunConfig:
    source = "{kind: folder, root: photos, tasks: {semseg: %s}}"
    alone = [f"~model.tasks.{name}" for name in ("normals", "saliency", "parsing")]
    given = [f"model.tasks.semseg={SPACE}", "loss.scale={}", "data.samples_per_epoch=2", "epochs=1"]
    kept = [entry for entry in RUN if not entry.startswith(("data.train", "data.val"))]
    sources = [
        f"data.train=[{source % SPACE},{source % 'mine/pets.yaml'}]",
        f"data.val=[{source % SPACE}]",
    ]
    return load_config("scenes", [*kept, *alone, *given, *sources, "data.val.0.split=train", *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a label space, images, and the run ``runs/mine``."""
    root = tmp_path_factory.mktemp("own")
    for folder in ("mine", "photos/images", "photos/semseg", "photos/splits"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (12, 8)).save(root / f"photos/images/{name}.png")
        Image.new("L", (12, 8), 1).save(root / f"photos/semseg/{name}.png")
    (root / "photos/splits/train.txt").write_text("a\nb\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("mine/pets.yaml").write_text("labels: [nothing, dog]\n")
        write_space(LABELS)
        trainer = Trainer(settings(), Path("runs/mine"))
        assert trainer.train()
    return root


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, from inside; the run's checkpoint."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("runs/mine") / LAST


def labels_of(path: Path) -> list[tuple[str, ...]]:
    network, config = load_network(path)
    assert network.tasks == config.tasks
    return [task.space.labels for task in config.tasks if task.space is not None]


def test_plain_types_and_back(tmp_path: Path) -> None:
    spaces = {name: LABEL_SPACES[name] for name in ("objects_rooms", "nyu13", "pascal_parts")}
    again = from_plain(json.loads(json.dumps(to_plain(spaces))))
    assert again == spaces
    assert "file" not in to_plain(spaces)["nyu13"]
    with pytest.raises(LabelSpaceError, match=r"label_spaces\.a\.yaml\.palette: Field required"):
        from_plain({"a.yaml": {"name": "a", "labels": ["x"]}})


def test_classes_of_a_checkpoint_stay_when_the_file_is_edited_or_gone(here: Path) -> None:
    write_space(("ground", "person", "dog"))
    assert labels_of(here) == [LABELS]
    shutil.rmtree("mine")
    for name in ("model.safetensors", "slim.pt"):
        checkpoint.strip(here, Path(name))
        assert labels_of(Path(name)) == [LABELS]
        again = Path(f"again-{name}")
        checkpoint.strip(Path(name), again)
        assert labels_of(again) == [LABELS]
    config = load_network(here)[1]
    assert override(config, ["data.batch_size=1"]).tasks == config.tasks


def test_a_checkpoint_that_keeps_none_takes_overrides(here: Path) -> None:
    state = checkpoint.load(here)
    del state["label_spaces"]
    checkpoint.save(here, state)
    _, config = load_network(here)
    assert checkpoint.moved(config, ["data.batch_size=1"]).data.batch_size == 1


def test_resuming_with_other_labels_is_refused_by_name(here: Path) -> None:
    assert Trainer(settings(), here.parent).resume()
    for labels, words in (
        (("ground", "person", "dog"), r"label 1 of mine/classes\.yaml: dog -> person"),
        ((*LABELS, "person on a bike"), r"label 3 of mine/classes\.yaml: absent -> person on a bike"),
    ):
        write_space(labels, "")
        pets = "data.train.1.read=[]"
        with pytest.raises(CheckpointError, match=words):
            Trainer(settings(pets), here.parent, check=False).resume()


def test_resuming_with_other_mappings_is_refused_and_with_other_colours_is_not(here: Path) -> None:
    write_space(LABELS, f'palette: ["#000000", "#102030", "#405060"]\n{PETS}')
    assert Trainer(settings(), here.parent).resume()
    write_space(LABELS, PETS.replace("[ground, person]", "[ground, dog, person]"))
    with pytest.raises(CheckpointError, match=r"mine/classes\.yaml: mappings changed"):
        Trainer(settings(), here.parent).resume()


def test_rows_go_by_the_names_that_the_checkpoint_has(here: Path) -> None:
    write_space(("ground", "person", "dog"))
    source, network = load_network(here)[0], build_network(settings())
    initialise(network, str(here))
    assert isinstance(source, MTCP)
    assert isinstance(network, MTCP)
    assert torch.equal(network.output_bias("semseg"), source.output_bias("semseg")[[0, 2, 1]])


def test_images_labelled_by_an_edited_file_are_not_scored(here: Path) -> None:
    write_space(("ground", "person", "dog"))
    config = load_network(here)[1]
    with pytest.raises(
        SourceError, match=r"classes\.yaml has other labels than mine/classes\.yaml as the ch"
    ):
        validation_sources(config.data, config.tasks)
    Path(SPACE).unlink()
    (source,) = validation_sources(config.data, config.tasks)
    assert (source[0]["semseg"] == 1).all()
    write_space((), "classes: 3")
    with pytest.raises(SourceError, match=r"source 'photos': classes\.yaml: classes: Extra"):
        validation_sources(config.data, config.tasks)


def test_a_checkpoint_of_before_reads_the_file(here: Path) -> None:
    state = {name: value for name, value in checkpoint.load(here).items() if name != "label_spaces"}
    checkpoint.save(Path("old.pt"), state)
    assert labels_of(Path("old.pt")) == [LABELS]
    checkpoint.save(Path("bad.pt"), state | {"label_spaces": {SPACE: "labels"}})
    with pytest.raises(CheckpointError, match=r"bad\.pt: label_spaces\.mine/classes\.yaml: "):
        load_network(Path("bad.pt"))
