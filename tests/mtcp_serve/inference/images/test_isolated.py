"""AVIF and HEIC are decoded in another process, whose time and memory have ends."""

import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow

from mtcp_serve.errors import ImageTooLargeError, InternalError, InvalidImageError
from mtcp_serve.inference.images import (
    DEFAULT_LIMITS,
    FORMATS,
    ImageLimits,
    decode,
    isobmff,
    isolated,
    measure,
    worker,
)
from tests.mtcp_serve.inference.images.boxes import parse
from tests.mtcp_serve.inference.images.boxes import written as joined
from tests.mtcp_serve.support import encode, noise
from tests.needs import needs_linux, needs_posix

SMOOTH = Image.fromarray(noise(10, 14)).resize((280, 200), Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    isolated.close()
    yield
    isolated.close()


def written(format: str) -> bytes:
    if format == "AVIF":
        return encode(SMOOTH, "AVIF", quality=95)
    buffer = BytesIO()
    from_pillow(SMOOTH).save(buffer, quality=95)
    return buffer.getvalue()


def idle() -> "subprocess.Popen[bytes]":
    """The one process that waits for work."""
    (waiting,) = isolated._idle
    return waiting.process


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_both_are_read(format: str) -> None:
    assert format in FORMATS
    image = decode(written(format))
    assert (image.info.format, image.info.width, image.info.height) == (format, 280, 200)
    assert np.abs(np.asarray(image.image).astype(int) - np.asarray(SMOOTH)).mean() < 3
    assert measure(written(format)) == (280, 200)


def test_the_containers_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(encode(SMOOTH, "AVIF", quality=95, exif=exif))
    assert image.info.exif_rotated
    assert (image.info.width, image.info.height) == (200, 280)
    assert np.abs(np.asarray(image.image).astype(int) - np.rot90(np.asarray(SMOOTH), -1)).mean() < 3


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_limits_and_damage_are_told_as_in_this_process(format: str) -> None:
    data = written(format)
    with pytest.raises(ImageTooLargeError, match="280 x 200 = 56000 pixels, the limit is 55999") as caught:
        decode(data, ImageLimits(max_pixels=55_999))
    assert "scale" in caught.value.hint
    for cut in (40, len(data) // 2, len(data) - 20):
        with pytest.raises(InvalidImageError, match=format):
            decode(data[:cut])
    assert decode(data).image.size == (280, 200)


@pytest.mark.parametrize("width", [16, 576])
def test_a_header_that_announces_another_size_is_damage(width: int) -> None:
    """Found by the fuzzer: the maps would be those of another size, and the limits are checked before."""
    buffer = BytesIO()
    from_pillow(SMOOTH.crop((0, 0, 64, 64))).save(buffer)
    boxes = parse(buffer.getvalue())
    (meta,) = (box for box in boxes if box.kind == b"meta")
    (properties,) = (box for box in meta.boxes if box.kind == b"iprp")
    (size,) = (box for box in properties.boxes[0].boxes if box.kind == b"ispe")
    size.content = struct.pack(">3I", 0, width, 64)
    with pytest.raises(InvalidImageError, match="is damaged"):
        decode(joined(boxes))


@needs_posix
def test_a_decoder_that_does_not_come_back_is_ended() -> None:
    data = written("AVIF")
    decode(data)
    process = idle()
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(ImageTooLargeError, match=r"took longer than 0\.2 s"):
        decode(data, ImageLimits(max_seconds=0.2))
    assert process.returncode == -signal.SIGKILL
    assert decode(data).image.size == (280, 200)


@needs_posix
def test_a_decoder_that_breaks_down_takes_nothing_with_it() -> None:
    data = written("AVIF")
    decode(data)
    process = idle()
    os.kill(process.pid, signal.SIGSTOP)  # so that it breaks down before it answers
    Timer(0.1, process.kill).start()
    with pytest.raises(InvalidImageError, match="its decoder broke down"):
        decode(data)
    decode(data)
    idle().kill()
    idle().wait()  # one that broke down while it waited
    assert decode(data).image.size == (280, 200)


@needs_posix
def test_a_process_that_does_not_start_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(InternalError, match="does not start"):
        decode(written("AVIF"))


@needs_linux
def test_memory_of_a_decoder_has_an_end() -> None:
    decode(written("AVIF"))
    most = worker.BASE_BYTES + worker.BYTES_PER_PIXEL * DEFAULT_LIMITS.max_pixels
    lines = Path(f"/proc/{idle().pid}/limits").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("Max address space")]
    assert line.split()[3] == str(most)


@needs_posix
def test_the_processes_end_with_the_program(tmp_path: Path) -> None:
    (tmp_path / "image.avif").write_bytes(written("AVIF"))
    code = (
        "import sys; from mtcp_serve.inference.images import isolated, read; "
        "read(sys.argv[1]); print(isolated._idle[0].process.pid)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "image.avif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_without_a_decoder_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isobmff, "readable", lambda format: False)
    with pytest.raises(InvalidImageError, match="not supported: HEIC, unless the extra heif is installed"):
        decode(written("HEIF"))
    with pytest.raises(InvalidImageError, match="not supported: AVIF by this Pillow"):
        decode(written("AVIF"))
