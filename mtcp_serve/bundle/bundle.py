"""A bundle: the folder of a model, read as one thing and changed as one thing."""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Self

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    PARITY_FILE,
    FileEntry,
    GraphTensor,
    Manifest,
)
from mtcp_serve.bundle.onnx_nodes import read_graph
from mtcp_serve.errors import BundleMismatchError, BundleNotFoundError, BundleWriteError, ManifestError
from mtcp_serve.utils.atomic import FULL, replaced_folder, workshop


class Bundle:
    """The bundle in ``folder``, which holds what ``manifest`` says; see `open`.

    A bundle is ``manifest.json`` and ``model.onnx``, for people ``parity.json`` and ``MODEL_CARD.md``, and
    what `export` makes of the graph: ``model_fp16.onnx``, plans.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"<Bundle {self.manifest.name} {self.manifest.version} in {self.folder}>"

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Self:
        """Read the manifest of the bundle in ``folder``; `verify` compares the files with it.

        Raises:
            BundleNotFoundError: there is no bundle in ``folder``.
            ManifestError: its manifest cannot be used.
        """
        place = Path(folder)
        if not (place / MANIFEST_FILE).is_file():
            message = f"there is no bundle in {place} (no {MANIFEST_FILE})"
            if place == DEFAULT_BUNDLE:
                message = f"this installation has no default bundle ({place}); name the folder of one"
            raise BundleNotFoundError(message)
        return cls(place, Manifest.load(place))

    def verify(self) -> Self:
        """Compare every file that the manifest names with its SHA-256; see that graphs read no others.

        Raises:
            BundleMismatchError: a file is missing, or its hash differs (both hashes are in the message); a
                graph cannot be read, or has weights in a file that the manifest does not name.
        """
        for name, entry in self.manifest.files.items():
            path = self.folder / name
            try:
                found = FileEntry.of(path).sha256
            except OSError as error:
                raise BundleMismatchError(
                    f"{MANIFEST_FILE} lists {name}, but {path} cannot be read: {error.strerror or error}"
                ) from error
            if found != entry.sha256:
                raise BundleMismatchError(
                    f"{MANIFEST_FILE} says {name} has SHA-256 {entry.sha256}, but {path} has {found}"
                )
            if path.suffix == ".onnx":
                self._check_data_files(path)
        return self

    def _check_data_files(self, graph: Path) -> None:
        """See that what ``graph`` reads its weights from is hashed, and so lies in the folder."""
        unlisted = [name for name in read_graph(graph).data_files if name not in self.manifest.files]
        if unlisted:
            raise BundleMismatchError(
                f"{graph} reads weights from {', '.join(unlisted)}, which {MANIFEST_FILE} does not list; "
                "save the graph with its weights inside, or list the file"
            )

    def graph(self, name: str = MODEL_FILE) -> Path:
        """The path of a graph or plan of the bundle.

        Raises:
            BundleNotFoundError: the manifest names no such file.
        """
        if name not in self.manifest.files:
            raise BundleNotFoundError(
                f"the bundle in {self.folder} has no {name}; it has {', '.join(self.manifest.files)}"
            )
        return self.folder / name

    def check_graph(self, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> None:
        """Compare the manifest with the tensors of the opened graph; see `Manifest.check_graph`.

        Raises:
            BundleMismatchError: they differ; the message says what each side has, for every difference.
        """
        try:
            self.manifest.check_graph(inputs, outputs)
        except BundleMismatchError as error:
            raise BundleMismatchError(f"{self.folder}: {error}") from error

    def parity(self) -> dict[str, Any]:
        """What ``parity.json`` says; nothing where there is none.

        Raises:
            BundleMismatchError: it is not JSON, or no object.
        """
        return _read_parity(self.folder)

    def check_editable(self) -> None:
        """Try whether `edit` can write beside the bundle, before there is much work to lose.

        Raises:
            BundleWriteError: it cannot.
            BundleMismatchError: nothing can be added to its `parity`.
        """
        self.parity()
        with _told(self.folder) as place, workshop(place.parent, place.name):
            pass

    @contextmanager
    def edit(self) -> "Iterator[Draft]":
        """Give a copy of the bundle to change; it takes the bundle's place if the block ends well.

        Raises:
            BundleWriteError: a file cannot be written. However the block fails, the bundle is as it was.
        """
        with _written(self.folder) as folder:
            _copy(self.folder, folder)
            draft = Draft(folder, self.manifest)
            yield draft
            draft.finish()
        self.manifest = draft.manifest

    def copy(self, out: Path) -> Self:
        """Copy the bundle to ``out``, which is not there yet: all of it or nothing.

        Raises:
            BundleWriteError: a file cannot be read or written.
        """
        with _written(out) as folder:
            _copy(self.folder, folder)
        return type(self)(out, self.manifest)


class Draft:
    """A bundle that is being changed: files go into ``folder``, and `add` names those that are new.

    Leaving `Bundle.edit` hashes them into the manifest.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._added: dict[str, int | None] = {}

    def add(self, name: str, opset: int | None = None) -> Path:
        """Say that the file ``name`` (with an ONNX ``opset`` if it is a graph) is new; its path."""
        self._added[name] = opset
        return self.folder / name

    def record_parity(self, column: str, report: Mapping[str, object]) -> None:
        """Put a comparison into ``parity.json`` under ``column``, beside what is there.

        Raises:
            BundleMismatchError: what is there is not JSON, or no object.
        """
        known = _read_parity(self.folder)
        path = self.add(PARITY_FILE)
        path.write_text(json.dumps({**known, column: report}, indent=2) + "\n", encoding="utf-8")

    def finish(self) -> None:
        """Write the manifest, with the hashes of what was added.

        Raises:
            OSError: a file that was added is not there, or the manifest cannot be written.
        """
        entries = {name: FileEntry.of(self.folder / name, opset) for name, opset in self._added.items()}
        self.manifest = self.manifest.model_copy(update={"files": {**self.manifest.files, **entries}})
        self.manifest.save(self.folder)


def _read_parity(folder: Path) -> dict[str, Any]:
    path = folder / PARITY_FILE
    if not path.is_file():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleMismatchError(f"{path} is not JSON: {error}") from error
    if not isinstance(report, dict):
        raise BundleMismatchError(f"{path} is a JSON {type(report).__name__}, not an object")
    return report


@contextmanager
def create_bundle(out: Path, files: Collection[str] = ()) -> Iterator[Path]:
    """Give an empty folder for a new bundle, manifest included; it then takes the place of ``out``.

    Of the bundle that it replaces only those files may be lost that its manifest names, and ``files``, which
    the new one has as well.

    Raises:
        BundleWriteError: ``out`` holds something that is not a bundle, or beside one what would be lost, or a
            file cannot be written. However the block fails, ``out`` is as it was.
    """
    if out.exists() and not (out / MANIFEST_FILE).is_file() and (out.is_file() or any(out.iterdir())):
        raise BundleWriteError(f"{out} exists and is not a bundle; choose another folder")
    if lost := _beside(out) - set(files):
        raise BundleWriteError(
            f"{out} would be replaced as a whole, and {', '.join(sorted(lost))} would be lost; "
            "move that elsewhere, or choose another folder"
        )
    with _written(out) as folder:
        folder.mkdir()
        yield folder


def _beside(folder: Path) -> set[str]:
    """Names of what lies in ``folder`` and is not of the bundle there."""
    if not folder.exists():
        return set()
    known = {MANIFEST_FILE, MODEL_FILE, PARITY_FILE}
    with suppress(ManifestError):  # of a schema before or after this one, or spoilt
        known.update(Manifest.load(folder).files)
    return {path.name for path in folder.iterdir()} - known


def _copy(folder: Path, into: Path) -> None:
    """Copy ``folder``; what is wrong is raised as of the first file, not as `shutil.copytree`'s list of all.

    Raises:
        OSError: a file cannot be read or written.
    """
    faults: list[OSError] = []

    def copy(file: str, target: str) -> None:
        try:
            shutil.copy2(file, target)
        except OSError as error:
            faults.append(error)
            raise

    try:
        shutil.copytree(folder, into, copy_function=copy)
    except shutil.Error as error:
        raise (faults or [OSError(error.args[0][0][2])])[0] from error


@contextmanager
def _written(out: Path) -> Iterator[Path]:
    with _told(out) as place, replaced_folder(place) as folder:
        yield folder


@contextmanager
def _told(out: Path) -> Iterator[Path]:
    """Give where ``out`` leads; make it a `BundleWriteError` that it cannot be written, or will not be."""
    place = out.resolve()
    if place.is_mount():
        raise BundleWriteError(
            f"{out} is a volume of its own, which cannot be replaced as a whole; name a folder in it"
        )
    try:
        yield place
    except OSError as error:
        fault = error.strerror if error.errno in FULL else error
        raise BundleWriteError(f"{out} cannot be written: {fault}") from error
