"""The command line: files, exit codes and messages."""

import ctypes
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mtcp_serve import __version__
from mtcp_serve.bundle import BUNDLES
from mtcp_serve.cli import cli
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve import command
from tests.mtcp_serve.process import until
from tests.mtcp_serve.support import GOOD, HEIGHT, STUCK, TASKS, WIDTH, encode, make_bundle, noise
from tests.needs import needs_linux

FILES = sorted([*(f"{task.name}.png" for task in TASKS), "maps.npz", "metadata.json", "overview.png"])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "image one.png"
    path.write_bytes(GOOD)
    return path


def test_predict_writes_every_map(bundle: Path, photo: Path, tmp_path: Path) -> None:
    result = run("predict", photo, "-o", tmp_path / "out", "--bundle", bundle)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "image one"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    mean = noise(HEIGHT, WIDTH).astype(np.float64).mean(-1)
    assert np.abs(np.asarray(opened(folder / "depth.png")) / 1000 - mean / 25.5).max() <= 0.00051
    with np.load(folder / "maps.npz") as archive:
        assert np.allclose(archive["depth"], mean / 25.5, rtol=1e-5)
    assert opened(folder / "overview.png").width > 3 * 480
    metadata = json.loads(opened(folder / "semseg.png").info["mtcp"])
    assert [label["name"] for label in metadata["labels"]] == ["dark", "medium", "bright"]


def test_file_names_do_not_command_the_terminal(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "\x1b]0;owned\x07[red].png").write_bytes(GOOD)
    (tmp_path / "\x9b31m.png").write_bytes(b"no image")
    (tmp_path / "two\nlines.png").write_bytes(GOOD)
    result = run("predict", tmp_path, "-o", tmp_path / "out", "-b", bundle, "--tasks", "depth")
    assert result.exit_code == 1
    assert "\\x1b]0;owned\\x07[red].png -> " in result.stderr
    assert "\\x9b31m.png: the bytes are not an image" in result.stderr
    assert "two\\nlines.png -> " in result.stderr
    assert not {"\x1b", "\x07", "\x9b"} & set(result.stderr)


def test_predict_is_told_the_camera(bundle: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("predict", photo, "-o", out, "-b", bundle, "--focal-px", "77", "--no-overview")
    assert result.exit_code == 0
    document = json.loads((out / photo.stem / "metadata.json").read_text())
    camera = document["response"]["image"]["camera"]
    assert (camera["fx"], camera["fy"], camera["source"]) == (77, 77, "request")
    refused = run("predict", photo, "-o", out, "-b", bundle, "--focal-px", "77", "--fov-x", "60")
    assert refused.exit_code == 2
    assert "give one of them" in refused.stderr


def test_predict_several_with_a_bad_one(bundle: Path, photo: Path, tmp_path: Path) -> None:
    bad, large = tmp_path / "bad[1].jpg", tmp_path / "large.jpg"
    bad.write_bytes(b"no image")
    large.write_bytes(encode(noise(100, 200), "JPEG"))
    out = tmp_path / "out"
    result = run(
        "predict", bad, photo, large, "-o", out, "-b", bundle, "--tasks", "depth, semseg,", "--size", "model"
    )
    assert result.exit_code == 1
    assert "bad[1].jpg: the bytes are not an image" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["image one", "large"]
    assert opened(out / "large" / "depth.png").size == (WIDTH, HEIGHT)
    assert sorted(path.name for path in (out / "large").glob("*.png")) == [
        "depth.png",
        "overview.png",
        "semseg.png",
    ]


def test_predict_reports_a_folder_that_cannot_be_written(bundle: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "image one").write_text("a file")
    result = run("predict", photo, "-o", tmp_path / "out", "-b", bundle)
    assert result.exit_code == 1
    assert f"failed: {photo}" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image one"]


@needs_linux
@pytest.mark.parametrize("letter", ["x", "ä"])
def test_predict_reports_a_name_that_is_too_long_for_results(
    bundle: Path, tmp_path: Path, letter: str
) -> None:
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - len("..partial")
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    longest = letter * (most // len(letter.encode()))
    longer = longest + "y"
    for stem in ("a", longer, longest, "z"):
        (folder / f"{stem}.png").write_bytes(GOOD)
    result = run("predict", folder, "-o", out, "-b", bundle, "--tasks", "depth", "--no-overview")
    assert result.exit_code == 1
    assert (
        f"failed: {folder / longer}.png: its name has {most + 1} bytes without the ending, and that of a "
        f"folder of results may have {most} there; rename the file, then give the same command again"
    ) in result.stderr
    assert "Errno" not in result.stderr
    assert "finished: 3 done, 1 failed" in result.stderr
    assert {path.name for path in out.iterdir()} == {"a", longest, "z"}


@needs_linux
def test_predict_reports_a_path_that_is_too_long_for_results(
    bundle: Path, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path.joinpath(*["x" * 200] * 20)
    result = run("predict", photo, "-o", out, "-b", bundle, "--tasks", "depth", "--no-overview")
    assert result.exit_code == 1
    assert "the path of its results is longer than this system takes; give an --out with a" in result.stderr


@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_predict_refuses_an_out_that_nothing_can_be_written_to(
    bundle: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("a file")
    result = run("predict", photo, "-o", file / below, "-b", bundle)
    assert result.exit_code == 2
    assert f"{file} is a file" in result.stderr
    there = tmp_path / "there"
    there.mkdir()
    may = os.access
    # as on a read-only disk; root may write anywhere else
    monkeypatch.setattr(
        os, "access", lambda path, mode: may(path, mode) and not (path == there and mode & os.W_OK)
    )
    result = run("predict", photo, "-o", there / below, "-b", bundle)
    assert result.exit_code == 2
    assert f"{there} cannot be written" in result.stderr
    assert not any(there.iterdir())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images in folders, and what is none."""
    folder = tmp_path / "tree"
    for number, name in enumerate(
        ("a.png", "b.PNG", "deep/a.png", "deep/er/c.d.png", ".hidden/x.png", "._a.png")
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(noise(HEIGHT, WIDTH, number)))
    for name in ("notes.txt", "deep/clip.mp4"):
        (folder / name).write_text("no image")
    return folder


def results(out: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(out)) for path in out.rglob("metadata.json"))


def test_a_folder_keeps_its_layout(bundle: Path, tree: Path, tmp_path: Path) -> None:
    flat = run("predict", tree, "-o", tmp_path / "flat", "-b", bundle, "--tasks", "depth")
    assert flat.exit_code == 0, flat.output
    assert results(tmp_path / "flat") == ["a", "b"]
    assert "left out: 1 files that are not images" in flat.stderr
    assert "left out: 1 folders; --recursive looks into them" in flat.stderr
    deep = run(
        "predict", tree, "-o", tree / "out", "-b", bundle, "--recursive", "--no-arrays", "--no-overview"
    )
    assert deep.exit_code == 0, deep.output
    assert results(tree / "out") == ["a", "b", "deep/a", "deep/er/c.d"]
    assert "left out: 2 files that are not images, 1 of them videos: name those" in deep.stderr
    assert "finished: 4 done" in deep.stderr
    names = {path.name for path in (tree / "out" / "deep" / "a").iterdir()}
    assert names == {*(f"{task.name}.png" for task in TASKS), "metadata.json"}
    # the maps in tree/out are not images
    again = run(
        "predict", tree, "-o", tree / "out", "-b", bundle, "--recursive", "--no-arrays", "--no-overview"
    )
    assert "finished: 0 done, 4 were complete before" in again.stderr


def test_links_to_folders_are_told_and_not_followed(bundle: Path, tree: Path, tmp_path: Path) -> None:
    (tree / "deep" / "round").symlink_to(tree)
    deep = run("predict", tree, "-o", tmp_path / "out", "-b", bundle, "--recursive", "--tasks", "depth")
    assert deep.exit_code == 0, deep.output
    assert results(tmp_path / "out") == ["a", "b", "deep/a", "deep/er/c.d"]
    assert "left out: 1 links to folders; name those that are meant" in deep.stderr
    flat = run("predict", tree / "deep", "-o", tmp_path / "flat", "-b", bundle, "--tasks", "depth")
    assert "left out: 1 folders; --recursive looks into them" in flat.stderr
    assert "left out: 1 links to folders" in flat.stderr


def test_what_is_complete_is_made_again_only_when_something_changed(
    bundle: Path, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = out / "image one" / "depth.png"

    def ran(*options: object) -> bool:
        """Whether the maps were made anew."""
        before = made.stat().st_ino if made.exists() else None
        result = run("predict", photo, "-o", out, *options)
        assert result.exit_code == 0, result.output
        assert ("is complete in" in result.stderr) == (before == made.stat().st_ino)
        return before != made.stat().st_ino

    common = ("-b", bundle, "--no-overview")
    assert ran(*common)
    assert not ran(*common)
    os.utime(photo)
    assert not ran(*common)
    (out / "image one" / "mine.txt").write_text("not of mtcp-serve")
    assert ran(*common, "--tasks", "depth")
    assert sorted(path.name for path in made.parent.iterdir()) == [
        "depth.png",
        "maps.npz",
        "metadata.json",
        "mine.txt",
    ]
    (made.parent / "maps.npz").unlink()
    assert ran(*common, "--tasks", "depth")
    assert ran(*common, "--tasks", "depth", "--overwrite")
    photo.write_bytes(encode(noise(HEIGHT, WIDTH, 5)))
    assert ran(*common, "--tasks", "depth")
    newer = make_bundle(tmp_path / "newer")
    text = (newer / "manifest.json").read_text()
    (newer / "manifest.json").write_text(text.replace('"version": "7"', '"version": "8"'))
    assert ran("-b", newer, "--no-overview", "--tasks", "depth")


def test_interrupted_it_goes_on(bundle: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name, data in (("a", GOOD), ("b", STUCK), ("c", GOOD)):
        (photos / f"{name}.png").write_bytes(data)
    process = command.start(photos, "-o", out, "-b", bundle)
    assert process.stdout is not None
    assert "a.png -> " in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, said = command.finish(process)
    assert code == 130
    assert "interrupted: 1 done, 2 left; the same command goes on with them" in said
    assert "Traceback" not in said
    assert [path.name for path in out.iterdir()] == ["a"]
    (photos / "b.png").write_bytes(GOOD)
    (out / ".b.partial").mkdir()  # as a killed process leaves it
    (out / ".b.partial" / "depth.png").write_bytes(b"half")
    code, said = command.finish(command.start(photos, "-o", out, "-b", bundle))
    assert code == 0
    assert "finished: 2 done, 1 were complete before" in said
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c"]


@needs_linux
def test_an_interrupt_that_wakes_nobody_is_heeded(bundle: Path, tmp_path: Path) -> None:
    """Python handles signals in the main thread; one that another thread gets does not end its sleep.

    Nor does one that comes just before it falls asleep, which cannot be timed from outside.
    """
    (tmp_path / "stuck.png").write_bytes(STUCK)
    (tmp_path / "first.png").write_bytes(GOOD)
    process = command.start(
        tmp_path / "first.png", tmp_path / "stuck.png", "-o", tmp_path / "out", "-b", bundle
    )
    assert process.stdout is not None
    assert "first.png -> " in process.stdout.readline()

    def busy() -> list[int]:
        """Threads but the main one that have had the processor for half a second."""
        stats = {path.parent: path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/stat")}
        ticks = {int(path.name): int(text.rpartition(")")[2].split()[11]) for path, text in stats.items()}
        return [thread for thread in ticks if thread != process.pid and ticks[thread] > 50]

    until(lambda: bool(busy()))  # a worker is with the model, and the main thread sleeps
    assert ctypes.CDLL(None).tgkill(process.pid, busy()[0], signal.SIGINT) == 0
    code, said = command.finish(process)
    assert code == 130, said
    assert "interrupted: 1 done, 1 left" in said


def test_predict_refuses_what_it_cannot_do(bundle: Path, photo: Path, tree: Path, tmp_path: Path) -> None:
    (tree / "empty" / "deep").mkdir(parents=True)
    twin = tmp_path / "image one.jpg"
    twin.write_bytes(GOOD)
    dots = [tmp_path / "..jpg", tmp_path / "...jpg"]
    for path in dots:
        path.write_bytes(GOOD)
    for arguments, message in (
        *(([path, "-b", bundle], f"cannot be called '{path.stem}'; rename the file") for path in dots),
        ([photo, twin, "-b", bundle], "overwrite each other"),
        ([photo, tree / "deep" / "a.png", tree, "-b", bundle], "overwrite each other"),
        ([tree / "empty", "-b", bundle], "there is no image in"),
        ([photo, "-b", bundle, "--tasks", "depht"], "no task 'depht'; it has semseg, depth"),
        ([photo, "-b", bundle, "--tasks", " ,"], "name at least one task, or leave tasks out"),
        ([photo, "-b", tmp_path], "no bundle in"),
        ([photo, "-b", bundle, "--intra-op-threads", "-1"], "intra_op_threads: Input should be greater"),
        ([photo, "-b", bundle, "--size", "huge"], "huge"),
        ([tmp_path / "missing.jpg", "-b", bundle], "does not exist"),
    ):
        result = run("predict", *arguments, "-o", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.stderr.replace("│", " ").split())  # typer's frame breaks lines
    assert not (tmp_path / "out").exists()


def test_serve_without_a_bundle_says_what_to_pass(tmp_path: Path) -> None:
    result = run("serve", "--bundle", tmp_path)
    assert result.exit_code == 2
    assert "no bundle in" in result.stderr
    assert "MTCP_BUNDLE" in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_help_shows_every_setting_and_default() -> None:
    text = " ".join(CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "300"}).output.split())
    for name, field in Settings.model_fields.items():
        if "In the environment only" in (field.description or ""):
            assert f"--{name.replace('_', '-')} " not in text
            continue
        assert (field.description or "?") in text or name == "bundle"
        default = "off" if field.default is False else field.default
        default = "none" if default in (None, (), "") else default
        assert f"Default: {default}." in text or name == "bundle"
        # MTCP_ and the option, or what the help says
        assert f"--{name.replace('_', '-')} " in text or f"In the environment: MTCP_{name.upper()}." in text


def test_models(bundle: Path, tmp_path: Path) -> None:
    result = run("models", bundle, make_bundle(tmp_path / "second"))
    assert result.exit_code == 0
    assert result.stdout.count("tiny") == 2
    for name in ("semseg", "parsing", "Apache-2.0", "4,096", f"{WIDTH} x {HEIGHT}"):
        assert name in result.stdout
    manifest = tmp_path / "second" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"Apache-2.0"', '"[MIT][/]"'))
    assert "[MIT][/]" in run("models", tmp_path / "second").stdout
    result = run("models", tmp_path)
    assert result.exit_code == 2
    assert "manifest.json" in result.stderr


def test_models_as_json(bundle: Path) -> None:
    result = run("models", bundle, "--json")
    (model,) = json.loads(result.stdout)
    assert (model["folder"], model["name"], model["version"]) == (str(bundle), "tiny", "7")
    assert model["bytes"] == (bundle / "model.onnx").stat().st_size
    assert [task["name"] for task in model["tasks"]] == [task.name for task in TASKS]


def test_models_of_the_package() -> None:
    result = run("models")
    shipped = list(BUNDLES.glob("*/manifest.json"))
    assert result.exit_code == (0 if shipped else 2)


def test_version() -> None:
    assert run("--version").stdout.strip() == f"mtcp-serve {__version__}"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCP_MAX_BYTES", "123")
    monkeypatch.setenv("MTCP_HOST", "::1")
    assert (Settings().max_bytes, Settings().host, Settings(host="h").host) == (123, "::1", "h")
    monkeypatch.setenv("MTCP_PORT", "many")
    result = run("serve")
    assert result.exit_code == 2
    assert "port: Input should be a valid integer" in result.stderr


def test_loopback_by_default() -> None:
    assert Settings().host == "127.0.0.1"
