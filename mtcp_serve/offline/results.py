"""A folder of results: complete or not there, and what it was made from.

``metadata.json`` is written last. It says what the files beside it were made from (``made_from``: the source
and its SHA-256, the bundles, the options), their names (``files``), what was wrong with the source
(``fault``, or null) and what the server would have answered (``response``, and by its old name, which goes
with the next version, ``answer``). A result that was made from what it would be made from now need not be
made again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.utils.atomic import Staging

METADATA_FILE = "metadata.json"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprints(manifests: Iterable[Manifest]) -> dict[str, str]:
    """A SHA-256 by model name; it covers the manifest and, through the hashes in it, the weights."""
    return {
        manifest.name: hashlib.sha256(manifest.model_dump_json(by_alias=True).encode()).hexdigest()
        for manifest in manifests
    }


def metadata(
    made_from: Mapping[str, Any], files: Iterable[str], response: Any = None, fault: str | None = None
) -> bytes:
    """The content of `METADATA_FILE`."""
    named = {"response": response, "answer": response}
    document = {"made_from": made_from, "files": list(files), "fault": fault} | named
    return (json.dumps(document, indent=1) + "\n").encode()


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """What `METADATA_FILE` in ``folder`` says; ``None`` where there is none of ours."""
    try:
        document = json.loads((folder / METADATA_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    ours = isinstance(document, dict) and {"made_from", "files", "fault"} <= document.keys()
    return document if ours else None


def finished(folder: Path, made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metadata of the complete result in ``folder``, if it was made from ``made_from``."""
    found = read_metadata(folder)
    if found is None or found["made_from"] != made_from:
        return None
    return found if all((folder / name).is_file() for name in found["files"]) else None


def publish(staging: Staging, folder: Path) -> None:
    """Move the files gathered in ``staging``, `METADATA_FILE` among them, to ``folder``.

    They appear at once where there is no ``folder`` yet. Otherwise they take the place of the result there,
    which is none from the first move until `METADATA_FILE` comes last; files of others are left alone.

    Raises:
        OSError: a file cannot be moved.
    """
    if not folder.exists():
        staging.folder.rename(folder)
        return
    discard(folder)
    names = sorted(path.name for path in staging.folder.iterdir())
    for name in sorted(names, key=METADATA_FILE.__eq__):
        (staging.folder / name).replace(folder / name)


def discard(folder: Path) -> None:
    """Delete the files of the result in ``folder``, if there is one, and no others."""
    found = read_metadata(folder)
    if found is None:
        return
    (folder / METADATA_FILE).unlink()
    for name in found["files"]:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
