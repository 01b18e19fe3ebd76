"""A bundle is read as one thing, and changed as one thing or not at all."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle, create_bundle
from mtcp_serve.bundle.manifest import FileEntry, GraphTensor
from mtcp_serve.errors import BundleMismatchError, BundleNotFoundError, BundleWriteError, ManifestError
from tests.mtcp_serve.support import make_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "ours" / "tiny")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_shipped_bundle_is_whole() -> None:
    bundle = Bundle.open(DEFAULT_BUNDLE).verify()
    assert bundle.graph() == DEFAULT_BUNDLE / "model.onnx"
    assert repr(bundle) == f"<Bundle mtcp-lite 2 in {DEFAULT_BUNDLE}>"
    assert set(bundle.parity()["tasks"]) == {task.name for task in bundle.manifest.outputs}


def test_what_is_not_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=f"no bundle in {tmp_path}"):
        Bundle.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ManifestError, match="schema None"):
        Bundle.open(tmp_path)


def test_a_changed_or_missing_file_is_found(folder: Path) -> None:
    bundle = Bundle.open(folder).verify()
    wanted = FileEntry.of(folder / "model.onnx").sha256
    (folder / "model.onnx").write_bytes(b"other")
    found = FileEntry.of(folder / "model.onnx").sha256
    with pytest.raises(BundleMismatchError, match=f"{wanted}.*{found}"):
        bundle.verify()
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleMismatchError, match=r"lists model\.onnx"):
        bundle.verify()


def test_a_graph_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=r"has no model\.plan; it has model\.onnx"):
        Bundle.open(folder).graph("model.plan")


def test_a_graph_that_differs_is_refused_with_the_folder(folder: Path) -> None:
    with pytest.raises(BundleMismatchError, match=f"{folder}: the manifest does not match the graph"):
        Bundle.open(folder).check_graph([GraphTensor("image", "float32", (1, 2, 3, 3))], [])


def test_an_edit_is_there_as_a_whole(folder: Path) -> None:
    bundle = Bundle.open(folder)
    with bundle.edit() as draft:
        draft.add("model_fp16.onnx", 18).write_bytes((folder / "model.onnx").read_bytes())
        draft.record_parity("fp16", {"tasks": 1})
        draft.record_parity("tensorrt", {"tasks": 2})
        assert not (folder / "model_fp16.onnx").exists()
    assert Bundle.open(folder).verify().manifest == bundle.manifest
    assert bundle.manifest.files["model_fp16.onnx"] == FileEntry.of(folder / "model_fp16.onnx", 18)
    assert bundle.graph("model_fp16.onnx").read_bytes() == bundle.graph().read_bytes()
    assert bundle.parity() == {"fp16": {"tasks": 1}, "tensorrt": {"tasks": 2}}
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_edit_that_fails_changes_nothing(failure: type[BaseException], folder: Path) -> None:
    bundle, before = Bundle.open(folder), contents(folder)
    manifest = bundle.manifest

    def spoil() -> None:
        with bundle.edit() as draft:
            draft.add("model.onnx", 18).write_bytes(b"spoilt")
            raise failure

    with pytest.raises(failure):
        spoil()
    assert contents(folder) == before
    assert bundle.manifest is manifest
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_bundle_that_cannot_be_replaced_is_told_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume of a container, most often; and where the folder around it is somebody else's."""
    bundle = Bundle.open(folder)
    bundle.check_editable()
    with monkeypatch.context() as volume:
        volume.setattr(Path, "is_mount", lambda path: path == folder)
        begun = False
        with pytest.raises(BundleWriteError, match=r"is a volume of its own.*name a folder in it"):
            bundle.check_editable()
        with pytest.raises(BundleWriteError, match="is a volume of its own"), create_bundle(folder):
            begun = True
        assert not begun

    def read_only(path: Path, **options: Any) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(BundleWriteError, match=r"tiny cannot be written: .*Read-only file system"):
        bundle.check_editable()
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_file_that_was_promised_and_not_written_is_refused(folder: Path) -> None:
    before = contents(folder)
    with (
        pytest.raises(BundleWriteError, match=r"cannot be written: .*model\.plan"),
        Bundle.open(folder).edit() as draft,
    ):
        draft.add("model.plan")
    assert contents(folder) == before


def test_an_edit_whose_files_cannot_take_their_place_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, before = Bundle.open(folder), contents(folder)
    rename = Path.rename

    def stubborn(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError("no space")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    with pytest.raises(BundleWriteError, match="no space"), bundle.edit() as draft:
        draft.add("notes.txt").write_text("new")
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_copy_is_a_bundle_of_its_own(folder: Path, tmp_path: Path) -> None:
    copy = Bundle.open(folder).copy(tmp_path / "copy")
    assert copy.verify().folder == tmp_path / "copy"
    with copy.edit() as draft:
        draft.record_parity("note", {})
    assert Bundle.open(folder).parity() == {}


def test_a_linked_bundle_is_changed_where_it_lies(folder: Path, tmp_path: Path) -> None:
    """What names a bundle from elsewhere, as ``current`` does, still leads to the one that was changed."""
    link = tmp_path / "current"
    link.symlink_to(folder)
    with Bundle.open(link).edit() as draft:
        draft.record_parity("note", {})
    with create_bundle(link, ["parity.json"]) as new:
        shutil.copytree(folder, new, dirs_exist_ok=True)
    assert link.readlink() == folder
    assert Bundle.open(folder).parity() == {"note": {}}
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_link_to_a_volume_is_told_as_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "current").symlink_to(folder)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == folder)
    with pytest.raises(BundleWriteError, match=r"current is a volume of its own"):
        Bundle.open(tmp_path / "current").check_editable()


@pytest.mark.parametrize("what", ["edit", "copy"])
def test_a_full_disk_is_told_in_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    bundle, before = Bundle.open(folder), contents(folder)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", source, None, target)

    monkeypatch.setattr(shutil, "copy2", full)
    place = folder if what == "edit" else tmp_path / "copy"
    with ExitStack() as stack:
        told = stack.enter_context(pytest.raises(BundleWriteError))
        if what == "edit":
            stack.enter_context(bundle.edit())
        bundle.copy(tmp_path / "copy")
    assert str(told.value) == f"{place} cannot be written: No space left on device"
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder.parent]


def test_a_new_bundle_takes_the_place_of_a_bundle_only(folder: Path, tmp_path: Path) -> None:
    with create_bundle(folder) as new:
        shutil.copytree(DEFAULT_BUNDLE, new, dirs_exist_ok=True)
    assert Bundle.open(folder).manifest.name == "mtcp-lite"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(BundleWriteError, match="is not a bundle"), create_bundle(tmp_path / "thesis"):
        pass
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@pytest.mark.parametrize(("text", "fault"), [("{", "is not JSON"), ("[1]", "is a JSON list, not an object")])
def test_parity_that_cannot_be_added_to_is_told_before_the_work(folder: Path, text: str, fault: str) -> None:
    (folder / "parity.json").write_text(text)
    bundle = Bundle.open(folder)
    with pytest.raises(BundleMismatchError, match=rf"parity\.json {fault}"):
        bundle.parity()
    with pytest.raises(BundleMismatchError, match=rf"parity\.json {fault}"):
        bundle.check_editable()
    with pytest.raises(BundleMismatchError, match=rf"parity\.json {fault}"), bundle.edit() as draft:
        draft.record_parity("fp16", {})
    assert (folder / "parity.json").read_text() == text
    assert json.loads((folder / "manifest.json").read_text())["schema"] == 1
