"""The shipped recipes and the one of the page on fine-tuning: they load, and mean what they say."""

import re
from pathlib import Path

import pytest

from training.config import load_config, shipped_configs

ROOT = Path(__file__).parents[2]
LITE = [name for name in shipped_configs() if name.startswith("mtcp_lite")]


@pytest.mark.parametrize("name", LITE)
def test_every_source_speaks_a_vocabulary_that_the_network_understands(name: str) -> None:
    config = load_config(name, ["root=x"])
    spaces = {task.name: task.space for task in config.tasks if task.space is not None}
    sources = [source for source in (*config.data.train, *config.data.val) if source.kind == "folder"]
    assert sources
    for source in sources:
        for task, theirs in source.tasks.items():
            space = spaces[task]
            assert theirs in space.targets.parts, (source.label, task)


def test_no_window_of_mtcp_lite_is_padded() -> None:
    config = load_config("mtcp_lite", ["root=x"])
    assert config.model.kind == "mtcp"
    window = config.model.decoder.window
    for stride in (4, 8, 16):
        assert config.data.height % (stride * window) == 0
        assert config.data.width % (stride * window) == 0


def test_the_open_recipe_reads_what_its_terms_allow_and_nothing_else() -> None:
    config = load_config("mtcp_lite_open", ["root=x"])
    assert config.model == load_config("mtcp_lite", ["root=x"]).model
    for source in config.data.train:
        if source.kind == "scenes":
            continue
        *allowed, (everything, factor) = source.repeat
        assert [prefix for prefix, _ in allowed] in (["ccp_"], ["tum_"])
        assert (everything, factor) == ("", 0.0)
        assert source.read is not None
        assert not {"semseg", "disparity"} & set(source.read)  # those labels come from teachers


def test_the_recipe_of_the_page_on_fine_tuning_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "finetune.md").read_text()
    classes, recipe = (
        re.sub(r"(?m)^   ", "", block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "classes.yaml").write_text(classes)
    (tmp_path / "mine.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    config = load_config("mine.yaml", ["root=mine"])
    semseg = config.tasks[0]
    assert semseg.space is not None
    assert semseg.space.labels == ("ground", "dog", "person")
    assert [task.name for task in config.tasks] == ["semseg", "depth", "normals", "saliency", "parsing"]
    assert config.init == "mtcp-lite"
    assert config.data.train[0].root == "mine"
