"""``predict`` onto a disk that is full: what it says, what it leaves, and how it goes on."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mtcp_serve import command
from tests.mtcp_serve.clips import write_clip
from tests.mtcp_serve.offline.web_server import WebServer, sized
from tests.mtcp_serve.support import encode, noise

Resize = Callable[[str], object]


def mount(*options: str) -> bool:
    """Whether a ``tmpfs`` could be mounted."""
    tool = shutil.which("mount")
    return (
        tool is not None
        and subprocess.run([tool, "-t", "tmpfs", *options], capture_output=True).returncode == 0
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A disk of its own with room for 600 kB, and what makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-o", "size=600k", "tests", str(folder)):
        pytest.skip("no file system may be mounted here")
    try:
        yield folder, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(encode(noise(60, 80, number)))
    return folder


def maps(folder: Path) -> dict[str, bytes]:
    """The files in ``folder``; of those that say how long things took, only that they are there."""
    return {name: data if name.endswith(".png") else b"" for name, data in command.listing(folder).items()}


def test_images_onto_a_full_disk(
    bundle: Path, photos: Path, disk: tuple[Path, Resize], tmp_path: Path
) -> None:
    folder, resize = disk
    options = ("-b", bundle, "--no-overview")
    out = folder / "out"
    code, said = command.finish(command.start(photos, "-o", out, *options))
    assert code == 1, said
    done = sorted(path.name for path in out.iterdir())
    assert 0 < len(done) < 6
    assert done == [str(number) for number in range(len(done))]  # nothing half-written, hidden or not
    left = 6 - len(done)
    assert f"error: no room for {out}/{len(done)}: it takes " in said
    assert "free; make room, then give" in said
    assert f"stopped: {len(done)} done, {left} left; the same command goes on with them" in said
    resize("20m")
    code, said = command.finish(command.start(photos, "-o", out, *options))
    assert code == 0, said
    assert f"finished: {left} done, {len(done)} were complete before" in said
    assert command.finish(command.start(photos, "-o", tmp_path / "whole", *options))[0] == 0
    assert maps(out) == maps(tmp_path / "whole")


def test_a_video_onto_a_full_disk(bundle: Path, disk: tuple[Path, Resize], tmp_path: Path) -> None:
    folder, resize = disk
    clip = write_clip(tmp_path / "clip.mp4", list(range(70)))
    options = ("-b", bundle, "--overlay", "depth:0.01")
    assert command.finish(command.start(clip, "-o", tmp_path / "whole", *options))[0] == 0
    (folder / "ballast").write_bytes(bytes(590_000))
    code, said = command.finish(command.start(clip, "-o", folder / "out", *options))
    assert code == 1, said
    assert f"no room for {folder / 'out' / 'clip'}: it takes " in said
    assert not (folder / "out" / "clip").exists()
    resize("20m")
    code, said = command.finish(command.start(clip, "-o", folder / "out", *options))
    assert code == 0, said
    assert command.listing(folder / "out") == command.listing(tmp_path / "whole")


def test_a_download_onto_a_full_disk(bundle: Path, disk: tuple[Path, Resize], tmp_path: Path) -> None:
    """What is free is what the next try finds, without the part that was downloaded."""
    server = WebServer({"/clip.mp4": sized(bytes(10**6))})
    try:
        code, said = command.finish(
            command.start(
                *(f"{server.url}/clip.mp4", "-o", tmp_path / "out", "-b", bundle, "--allow-private"),
                *("--video", "depth"),
                environment={"TMPDIR": str(disk[0])},
            )
        )
    finally:
        server.close()
    assert code == 1, said
    assert "it takes 1.0 MB or more, " in said
    free = re.search(r"(\d+)\.\d kB are free", said)
    assert free is not None, said
    assert int(free[1]) > 500


def test_a_result_larger_than_a_file_may_be(bundle: Path, photos: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for any failure of one image alone."""
    (photos / "3.png").write_bytes(encode(noise(480, 640)))
    out = tmp_path / "out"
    limited = ("bash", "-c", 'ulimit -f 300; exec "$@"', "bash")  # 300 KiB
    code, said = command.finish(
        command.start(photos, "-o", out, "-b", bundle, "--no-overview", wrapper=limited)
    )
    assert code == 1, said
    assert "failed: " in said
    assert "3.png: [Errno 27] File too large" in said
    assert "finished: 5 done, 1 failed" in said
    assert sorted(path.name for path in out.iterdir()) == ["0", "1", "2", "4", "5"]
    code, said = command.finish(command.start(photos, "-o", out, "-b", bundle, "--no-overview"))
    assert code == 0, said
    assert "finished: 1 done, 5 were complete before" in said
    assert (out / "3" / "metadata.json").is_file()
