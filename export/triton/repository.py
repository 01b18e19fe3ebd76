"""Writing a model repository: a version is there completely, or not at all."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.triton.config import (
    CONFIG_FILE,
    PYTHON_MODEL_FILE,
    Backend,
    Serving,
    model_config,
    read_config,
)
from export.trt.header import SIZE, read_header
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MODEL_FILE, Manifest
from mtcp_serve.bundle.onnx_nodes import read_graph
from mtcp_serve.errors import BundleError
from mtcp_serve.utils.atomic import merge_folder, workshop

_PYTHON_MODEL = Path(__file__).with_name("python_model.py")
_LAST_VERSION = 2**63 - 1  # of a larger one the whole server dies
_CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]")


def write_repository(
    bundle: Bundle,
    out: Path,
    *,
    backend: Backend,
    version: int | None = None,
    serving: Serving | None = None,
    plans: Mapping[str, Path] | None = None,
    config_only: bool = False,
) -> Path:
    """Add ``bundle`` to the model repository ``out`` and return the model's folder, ``out/NAME``.

    The folder gets ``config.pbtxt`` and ``VERSION/`` with the model and its manifest. Other versions and
    other models stay; the same version is replaced; the config says what ``serving`` says now. ``version``
    is the bundle's own unless given. TensorRT needs ``plans``: by compute capability, such as
    ``{"8.9": path}``. ``config_only`` writes no version, only the config as it would be with it.

    Raises:
        BundleMismatchError: the bundle's files are not those of its manifest.
        ExportError: a plan or the version cannot be used, the model is there with another backend
            or other tensors, or a file cannot be written. Then ``out`` is as it was before.
    """
    manifest = bundle.verify().manifest
    number = _version(manifest, version)
    plans = _checked(plans or {}, backend, config_only)
    names = {capability: f"model_sm{capability.replace('.', '')}.plan" for capability in plans}
    folder = out / manifest.name
    kept = {there: known for there, known in _present(folder, backend).items() if there != number}
    files = names | {old: name for old, name in _present_plans(folder, kept).items() if old not in names}
    text = model_config(kept | {number: manifest}, backend, serving or Serving(), files)
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with workshop(_workplace(out), out.name) as place:
            model = place / "model"
            model.mkdir()
            (model / CONFIG_FILE).write_text(text, encoding="utf-8")
            if not config_only:
                built = {names[capability]: path for capability, path in plans.items()}
                _fill(model / str(number), bundle, backend, built)
            merge_folder(model, folder, place / "replaced")  # versions first: they sort before the config
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error}") from error
    finally:
        if made:
            with suppress(OSError):  # it holds the model
                out.rmdir()
    return folder


def _version(manifest: Manifest, version: int | None) -> int:
    """Triton's versions are whole numbers from 1; a bundle's may be any word."""
    if version is None:
        if not re.fullmatch(r"[1-9][0-9]{0,8}", manifest.version):
            raise ExportError(
                f"the bundle's version is {manifest.version!r}, Triton's are whole numbers: give --version"
            )
        return int(manifest.version)
    if not 1 <= version <= _LAST_VERSION:
        raise ExportError(f"version is {version}, Triton's are from 1 to {_LAST_VERSION}")
    return version


def _checked(plans: Mapping[str, Path], backend: Backend, config_only: bool) -> Mapping[str, Path]:
    if plans and backend != "tensorrt":
        raise ExportError(f"plans are for the tensorrt backend, not for {backend}")
    if backend == "tensorrt" and not plans and not config_only:
        raise ExportError("the tensorrt backend needs at least one plan; python -m export.trt builds them")
    for capability, path in plans.items():
        if not _CAPABILITY.fullmatch(capability):
            raise ExportError(f"{capability!r} is not a compute capability, such as 8.9")
        if not path.is_file():
            raise ExportError(f"there is no plan at {path}")
        try:
            with path.open("rb") as file:
                header = read_header(file.read(SIZE))
        except OSError as error:
            raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error
        if header is None:
            raise ExportError(f"{path} is not a plan of TensorRT; python -m export.trt builds them")
        if header.rtx:
            raise ExportError(
                f"{path} is a plan of {header.describe()}, which Triton's tensorrt backend cannot load; "
                "python -m export.trt --target here builds one that it can"
            )
    return plans


def _config(folder: Path) -> Any:
    """What Triton is told of the model in ``folder``; None if there is none."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        return read_config(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ExportError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error


def _present(folder: Path, backend: Backend) -> dict[int, Manifest]:
    """The manifests of the versions that are in ``folder``."""
    config = _config(folder)
    if config is None:
        if folder.exists():
            raise ExportError(f"{folder} exists and is not a model of a Triton repository")
        return {}
    if config.backend != backend:
        raise ExportError(
            f"{folder} is served by the {config.backend} backend, not by {backend}; choose another repository"
        )
    try:
        return {
            int(path.name): Manifest.load(path)
            for path in folder.iterdir()
            if path.is_dir() and path.name.isdecimal()
        }
    except BundleError as error:
        raise ExportError(f"a version that is there cannot be kept: {error}") from error


def _present_plans(folder: Path, versions: Iterable[int]) -> dict[str, str]:
    """The file of the plan for each compute capability for which one of ``versions`` has a plan."""
    config = _config(folder)
    if config is None:
        return {}
    return {
        capability: name
        for capability, name in sorted(config.cc_model_filenames.items())
        if any((folder / str(version) / name).is_file() for version in versions)
    }


def _workplace(out: Path) -> Path:
    """Where to prepare what is then renamed to ``out``.

    That is beside the repository and not in it, where a polling Triton would take it for a model; but in it
    if it is a volume of its own, or the folder around it belongs to somebody else.
    """
    beside = out.parent
    same = beside.stat().st_dev == out.stat().st_dev
    return beside if same and os.access(beside, os.W_OK | os.X_OK) else out


def _fill(folder: Path, bundle: Bundle, backend: Backend, plans: Mapping[str, Path]) -> None:
    """Write the files of one version."""
    folder.mkdir()
    bundle.manifest.save(folder)
    if backend == "tensorrt":
        for name, path in plans.items():
            shutil.copyfile(path, folder / name)
        return
    for name in (MODEL_FILE, *read_graph(bundle.graph()).data_files):
        shutil.copyfile(bundle.graph(name), folder / name)
    if backend == "python":
        shutil.copyfile(_PYTHON_MODEL, folder / PYTHON_MODEL_FILE)
