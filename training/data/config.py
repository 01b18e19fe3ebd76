"""Settings of the training data: one :class:`SourceConfig` a source, one :class:`AugmentConfig` for all."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from training.label_spaces import LABEL_SPACES, LabelSpace
from training.label_spaces.kept import KeepsSpaces, kept_spaces
from training.strict import Strict
from training.tasks import TASK_NAMES

log = logging.getLogger(__name__)


class SourceConfig(KeepsSpaces, Strict):
    """One source of samples of the training mixture."""

    kind: str
    """Name in the registry of sources: ``folder``, ``nyud``, ``pascal``, ``cityscapes`` or ``scenes``."""
    root: str = ""
    """Directory of the data set, in the layout of its kind; ``scenes`` has none."""
    split: str = "train"
    """``folder``: the ids are the lines of ``splits/<split>.txt``; ``scenes``: splits share no scene; else a
    split of the data set: ``train`` or ``val``."""
    name: str = ""
    """Label used in reports; empty: the last part of ``root``, or the kind."""
    title: str = ""
    """What people call it, for bundles to say what they learnt from: "rooms of NYUv2"; empty: `label`."""
    tasks: dict[str, str] = Field(default_factory=dict)
    """Label space of each ``labels`` task of a ``folder``, e.g. ``{"semseg": "voc"}``; data sets know theirs.

    A task is read if the network's label space is the same or has a mapping from it (see
    :mod:`training.label_spaces`).
    """
    translate: bool | None = None
    """Without effect: labels of a mapped space are always read, unless ``read`` leaves them out."""
    parts_from_people: bool = False
    """Where an image has semantics and no parsing, parsing is background where semantics know no person."""
    shows_no_class: list[str] = Field(default_factory=list)
    """``folder``: id prefixes of images known to show none of the classes that ``semseg`` is labelled in, but
    background, class 0; a coyote is no dog. Where such a file names no other class, what it ignores is
    background too."""
    read: list[str] | None = None
    """Maps to read, by folder name (``depth`` and ``disparity`` are two); None: all the network can use."""
    normals_axes: Literal["auto", "right up", "left up", "right down", "left down"] = "auto"
    """``nyud``, ``pascal``: where positive x and y of the files' normals point. ``auto``: ``nyud`` asks the
    depth of the same images; ``pascal`` says "left up" (see :mod:`training.data.pascal`)."""
    focal: tuple[PositiveFloat, PositiveFloat] | None = None
    """Focal lengths of the camera over the width and over the height of its images, as in (fx / width,
    fy / height); None: what the EXIF of each image says, else a field of view of 60 degrees over the longer
    side."""
    weight: NonNegativeFloat = 1.0
    """Times its length: this source's share of the samples of an epoch."""
    count: PositiveInt = 256
    """``scenes``: number of scenes."""
    repeat: list[tuple[str, NonNegativeFloat]] = Field(default_factory=list)
    """Sampling factor by id prefix, e.g. ``[("kitchen_", 0.5)]``; the first prefix that fits counts."""
    balance: Literal["semseg", "parsing"] | None = None
    """Draw images with rare classes of this task more often (see :mod:`training.data.balance`)."""
    balance_power: float = Field(default=0.5, ge=0.0, le=1.0)
    """Exponent of the inverse class frequency: 0 uniform, 0.5 square root, 1 full."""

    @field_validator("translate")
    @classmethod
    def _translate_is_gone(cls, value: bool | None) -> bool | None:
        if value is not None:
            log.warning("translate has no effect any more: label spaces are mapped by their own files")
        return None

    @field_validator("tasks")
    @classmethod
    def _tasks_have_known_spaces(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        _check_known("task", value, TASK_NAMES)
        _check_known("label space", set(value.values()) - set(kept_spaces(info)), LABEL_SPACES)
        return value

    @model_validator(mode="after")
    def _bare_images_are_files(self) -> Self:
        if self.shows_no_class and (self.kind != "folder" or "semseg" not in self.tasks):
            raise ValueError("shows_no_class: it is for a folder with semantics; name their space in tasks")
        return self

    @field_validator("read")
    @classmethod
    def _read_names_maps(cls, value: list[str] | None) -> list[str] | None:
        _check_known("map", value or (), (*TASK_NAMES, "disparity"))
        return value

    @property
    def label(self) -> str:
        """The name reports and messages use."""
        return self.name or self.root.rstrip("/").rpartition("/")[2] or self.kind

    def space_of(self, task: str) -> LabelSpace:
        """The label space in ``tasks``, as its file has it now; where that is gone, as a checkpoint kept it.

        Raises:
            LabelSpaceError: the file cannot be used.
        """
        name = self.tasks[task]
        gone = name in self._kept and not Path(name).expanduser().is_file()
        return self._kept[name] if gone else LABEL_SPACES[name]


def _check_known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")


class PasteConfig(Strict):
    """Objects of other images of the mixture, pasted into a sample (`training.data.paste`)."""

    probability: float = Field(gt=0.0, le=1.0)
    """Share of the samples into which those of another one are pasted."""
    task: Literal["semseg", "parsing"] = "semseg"
    """Whose labels say where objects are."""
    classes: tuple[str, ...] = Field(min_length=1)
    """The classes of the network that are pasted, e.g. ``[person, dog]``."""


class AugmentConfig(Strict):
    """Strengths of the random changes of a training sample; the size is given separately."""

    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of a horizontal flip."""
    scale: tuple[float, float] = (0.5, 1.0)
    """Range of the side of the crop as a share of the image's side, at most 2: above 1 there are borders
    without labels around the image. The field's zoom of 0.5 to 2 is (0.5, 2.0)."""
    aspect: float = Field(default=0.15, ge=0.0)
    """Largest change of the crop's aspect ratio against the image's own, as |ln|."""
    whole: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability of taking the whole image, as the server does, instead of a crop."""
    rotate: float = Field(default=0.1, ge=0.0, le=1.0)
    """Probability of an in-plane rotation."""
    degrees: float = Field(default=10.0, ge=0.0, le=45.0)
    """Largest rotation."""
    brightness: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Brightness is multiplied by up to 1 -+ this."""
    contrast: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Distance from the mean grey is multiplied by up to 1 -+ this."""
    saturation: float = Field(default=0.4, ge=0.0, le=1.0)
    """Distance from grey is multiplied by up to 1 -+ this."""
    hue: float = Field(default=0.03, ge=0.0, le=0.5)
    """Largest turn of the hue, in full circles."""
    grey: float = Field(default=0.05, ge=0.0, le=1.0)
    """Probability of taking all colour away."""
    paste: PasteConfig | None = None
    """None: no sample shows parts of another."""

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < value[0] <= value[1] <= 2.0:
            raise ValueError(f"scale must be a range (low, high) with 0 < low <= high <= 2, got {value}")
        return value
