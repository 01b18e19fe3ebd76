"""A coverage-guided fuzzer over the image reader: ``make fuzz``; needs the extra ``fuzz``.

Every input must end in an upright RGB image of the size that was announced, or in an error that a client
gets; libFuzzer ends with a file of the input where it does not, or takes too long (``-timeout``, seconds) or
too much memory (``-rss_limit_mb``). AVIF and HEIC, whose decoders run in a process of their own, are read
here as that process reads them; nothing of libavif and libheif is instrumented, but their files are changed
box by box (`boxes`). ``make fuzz CONTAINERS=1`` begins with files of these two formats alone.
"""

import os
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mtcp_serve.inference.images"]):
    from mtcp_serve.errors import RequestError
    from mtcp_serve.inference.images import ImageLimits
    from mtcp_serve.inference.images.reader import decode_here, measure_here

from tests.mtcp_serve.corpus import corpus
from tests.mtcp_serve.inference.images.boxes import change
from tests.mtcp_serve.inference.images.seeds import containers, seeds

LIMITS = ImageLimits(max_bytes=2**20, max_pixels=2**20, max_side=4096)
PNG = b"\x89PNG\r\n\x1a\n"


def check(data: bytes) -> None:
    """Read ``data`` whole and at reduced size."""
    try:
        announced = measure_here(data, LIMITS)
        whole = decode_here(data, LIMITS, None)
    except RequestError:
        return
    assert whole.image.mode == "RGB"
    assert whole.image.size == (whole.info.width, whole.info.height)
    assert sorted(whole.image.size) == sorted(announced)
    assert decode_here(data, LIMITS, 16).info == whole.info


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's own mutation; most of the time the checksums of a PNG and the sizes of boxes are right."""
    if seed % 4 and data[4:8] == b"ftyp":
        return change(data, most, seed, _mutated)
    changed = _mutated(data, most)
    return _with_checksums(changed) if changed.startswith(PNG) and seed % 4 else changed


def _mutated(data: bytes, most: int) -> bytes:
    return bytes(atheris.Mutate(data, most))


def _with_checksums(data: bytes) -> bytes:
    parts, position = [PNG], len(PNG)
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        parts += [data[position:end], zlib.crc32(data[position + 4 : end]).to_bytes(4, "big")]
        position = end + 4
    return b"".join([*parts, data[position:]])


def main() -> None:
    """Write the seeds into the folder that comes first, and fuzz with libFuzzer's options behind it."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    files = [data for _, data in containers()]
    if os.environ.get("CONTAINERS") != "1":
        files = [*(data for _, data, _ in corpus()), *seeds(), *files]
    for index, data in enumerate(files):
        if 0 < len(data) <= 65_536:
            (folder / f"seed-{index:04}").write_bytes(data)
    atheris.Setup(sys.argv, check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
