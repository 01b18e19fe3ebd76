"""A folder of images to a partial-label folder, image by image, resumable at any."""

import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MODEL_FILE, LabelsTask, Manifest, NormalsTask, TaskSpec
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.errors import BundleError
from mtcp_serve.inference.images import FORMATS, IMAGE_SUFFIXES
from mtcp_serve.utils.atomic import write_atomic
from training.data.encodings import read_image_file
from training.data.errors import LabelError
from training.label_spaces import LABEL_SPACES
from training.postprocess import NORMALS_FRAME
from training.pseudo.agreement import AGREEMENTS, agree
from training.pseudo.encode import encode, folder_name
from training.pseudo.views import VIEWS, look, put_back
from training.tasks import TASK_NAMES, kind_of

log = logging.getLogger(__name__)

SETTINGS_FILE = "pseudo_labels.json"
DONE_FILE = "done.txt"
"""Ids whose labels are complete, one a line."""
_LARGEST = 8
"""Images are decoded at no more than about this many times the network's size."""


class PseudoLabelError(ValueError):
    """Nothing can be labelled; the message says what to do."""


@dataclass(frozen=True)
class Outcome:
    """What became of an image: the share of its pixels that kept a label, by task, or why it has none."""

    image: Path
    kept: dict[str, float]
    error: str | None = None


def find_images(folder: Path) -> dict[str, Path]:
    """The images directly in ``folder`` by id: the name before the dot, spaces as ``_``.

    They are of any format that serving reads.

    Raises:
        PseudoLabelError: there are none, or two have one id.
    """
    if not folder.is_dir():
        raise PseudoLabelError(f"{folder} is not a folder of images")
    found: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            others.append(path.name)
            continue
        name = "_".join(path.stem.split())
        if name in found:
            raise PseudoLabelError(f"{found[name]} and {path} would have one id, {name!r}; rename one")
        found[name] = path
    if not found:
        raise PseudoLabelError(f"{folder} has no images ({', '.join(FORMATS)})")
    if others:
        log.warning("%d in %s are not images and left out, the first is %s", len(others), folder, others[0])
    return found


class PseudoLabeller:
    """Labels images with the model of a bundle.

    Args:
        bundle: folder of a bundle, or the ``model.onnx`` in it.
        out: folder for ``images/``, one folder per task and ``splits/``; picked up where a run left it.
        tasks: names of tasks to label; None: all that the bundle has.
        confidence: see :mod:`training.pseudo.agreement`; above 0.5, at most 1.

    Raises:
        PseudoLabelError: the bundle cannot be used for this, or ``out`` holds something else.
    """

    def __init__(self, bundle: Path, out: Path, tasks: Sequence[str] | None, confidence: float) -> None:
        if not 0.5 < confidence <= 1:
            raise PseudoLabelError(f"confidence must be above 0.5 and at most 1, got {confidence}")
        if bundle.is_file() and bundle.name != MODEL_FILE:
            raise PseudoLabelError(f"{bundle} is not a bundle: give its folder, or the {MODEL_FILE} in it")
        try:
            self._engine = load_engine(Bundle.open(bundle.parent if bundle.is_file() else bundle))
        except BundleError as error:
            raise PseudoLabelError(str(error)) from error
        self.tasks = _usable(self._engine.manifest, tasks)
        self.out, self._confidence = out, confidence
        self._claim()

    def _claim(self) -> None:
        """Make ``out`` ours, or find that it is from an earlier run with the same settings."""
        path, settings = self.out / SETTINGS_FILE, self._settings()
        if path.is_file():
            try:
                begun = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise PseudoLabelError(f"{path} is damaged ({error}); choose another folder") from error
            if begun != settings:
                raise PseudoLabelError(
                    f"{self.out} was begun with another model or other settings (see {path}); "
                    "choose another folder"
                )
            return
        if self.out.exists() and (self.out.is_file() or any(self.out.iterdir())):
            raise PseudoLabelError(f"{self.out} exists and holds no pseudo-labels; choose another folder")
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(settings, indent=1) + "\n").encode())

    def _settings(self) -> dict[str, Any]:
        manifest = self._engine.manifest
        return {
            "model": manifest.name,
            "version": manifest.version,
            "sha256": manifest.files[MODEL_FILE].sha256,
            "confidence": self._confidence,
            "confidence_means": f"agreement of {len(VIEWS)} views of an image, not a probability",
            "tasks": {
                folder_name(task): task.dataset if isinstance(task, LabelsTask) else None
                for task in self.tasks
            },
        }

    def done(self) -> list[str]:
        """Ids that are labelled already."""
        path = self.out / DONE_FILE
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line.rstrip("\n") for line in lines if line.endswith("\n")]  # a crash may leave half a line

    async def label(self, images: dict[str, Path]) -> AsyncIterator[Outcome]:
        """Label those ``images`` (by id) that are not done, then write the split ``train`` of all that are.

        An image that cannot be read is reported and left out.
        """
        ready = self.done()
        write_atomic(self.out / DONE_FILE, "".join(f"{name}\n" for name in ready).encode())
        for name, image in images.items():
            if name in ready:
                continue
            try:
                kept = await self._label(name, image)
            except (LabelError, OSError) as error:
                yield Outcome(image, {}, str(error))
                continue
            with (self.out / DONE_FILE).open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
            ready.append(name)
            yield Outcome(image, kept)
        (self.out / "splits").mkdir(exist_ok=True)
        write_atomic(self.out / "splits" / "train.txt", "".join(f"{name}\n" for name in ready).encode())

    async def _label(self, name: str, image: Path) -> dict[str, float]:
        spec = self._engine.manifest.input
        size = (spec.height, spec.width)
        pixels = _read(image, size)
        grid = _grid(pixels.shape[:2], size)
        kept = {}
        for task, (values, valid) in (await self._agreed(pixels, grid, size)).items():
            path = self.out / folder_name(task) / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            if valid.any():
                write_atomic(path, encode(task, values, valid))
            kept[folder_name(task)] = float(valid.mean())
        _place(image, self.out / "images" / f"{name}{image.suffix.lower()}")
        return kept

    async def _agreed(
        self, pixels: NDArray[np.uint8], grid: tuple[int, int], size: tuple[int, int]
    ) -> dict[TaskSpec, tuple[Any, NDArray[np.bool_]]]:
        seen: list[list[tuple[Any, NDArray[np.bool_]]]] = [[] for _ in self.tasks]
        for view in VIEWS:
            maps = await self._engine.infer(look(pixels, view, grid, size)[None], self.tasks)
            for task, values, views in zip(self.tasks, maps, seen, strict=True):
                views.append(put_back(task, values[0], view, grid))
        agreed = {}
        for task, views in zip(self.tasks, seen, strict=True):
            values, covered = (np.stack(side) for side in zip(*views, strict=True))
            agreed[task] = agree(task, values, covered, self._confidence)
        return agreed


def _usable(manifest: Manifest, names: Sequence[str] | None) -> tuple[TaskSpec, ...]:
    """The tasks to label, all of which the folder reader can read back."""
    tasks = {task.name: task for task in manifest.tasks}
    for name in names or ():
        if name not in tasks:
            raise PseudoLabelError(f"model {manifest.name} has no task {name!r}; it has {', '.join(tasks)}")
    chosen = tuple(task for name, task in tasks.items() if names is None or name in names)
    for task in chosen:
        if task.name not in TASK_NAMES or kind_of(task.name) != task.kind:
            raise PseudoLabelError(
                f"model {manifest.name} has a task {task.name!r} ({task.kind}) that no network here can "
                "be trained for; leave it out with --tasks, or add it to training/tasks.py"
            )
        if task.kind not in AGREEMENTS:
            raise PseudoLabelError(
                f"no pseudo-labels are made of {task.name}: training/pseudo has no entry for the kind "
                f"{task.kind!r}; leave it out with --tasks"
            )
        if isinstance(task, LabelsTask):
            space = LABEL_SPACES.get(task.dataset)
            if space is None or space.labels != task.labels:
                raise PseudoLabelError(
                    f"the classes of {task.name} ({task.dataset}) are not a label space of "
                    "training/label_spaces; add them there, or leave the task out with --tasks"
                )
        if isinstance(task, NormalsTask) and task.frame != NORMALS_FRAME:
            raise PseudoLabelError(f"normals have the frame {task.frame!r}, labels need {NORMALS_FRAME!r}")
    return chosen


def _read(image: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    tensor = read_image_file(image, (_LARGEST // 2 * size[0], _LARGEST // 2 * size[1]))
    return np.ascontiguousarray(functional.to_pil_image(tensor))


def _grid(image: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Size (H, W) of the labels: the image's proportions, about as many pixels as the network gives."""
    scale = min(1.0, (size[0] * size[1] / (image[0] * image[1])) ** 0.5)
    return max(1, round(image[0] * scale)), max(1, round(image[1] * scale))


def _place(image: Path, target: Path) -> None:
    """Put the image at ``target``: as a hard link where the file system can, else as a copy."""
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(image, target)
    except OSError:
        shutil.copyfile(image, target)
