"""A prediction: what a model, a gateway or a Triton found in one image."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from mtcp_serve.errors import RequestError
from mtcp_serve.inference.camera import Camera
from mtcp_serve.inference.images import DecodedImage
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import KINDS, DepthTask, NormalsTask, ProbabilityTask
from mtcp_serve.kinds.base import Confidence, Map, TaskSpec
from mtcp_serve.kinds.colormaps import DEFAULT
from mtcp_serve.kinds.confidence import SUFFIX, ConfidenceTask
from mtcp_serve.kinds.guided import Guide
from mtcp_serve.kinds.resample import nearest
from mtcp_serve.outputs.cutout import cutout, over
from mtcp_serve.outputs.formats.archive import ArrayArchive
from mtcp_serve.outputs.metadata import describe, describe_map
from mtcp_serve.outputs.picture import Style, check_style, draw
from mtcp_serve.outputs.png import to_png
from mtcp_serve.outputs.png_file import write_png
from mtcp_serve.outputs.points import PointCloud, Relief, point_cloud, sized
from mtcp_serve.outputs.schemas import ImageOut
from mtcp_serve.utils.atomic import write_atomic

_SHAPES: Final = (DepthTask, NormalsTask, ProbabilityTask)  # what points and cut-outs are made of
THUMBNAIL = 240
"""Longer side of an image in a notebook, pixels."""


class Prediction(Mapping[str, Map]):
    """The maps of one image: ``prediction["depth"]`` is an array ``[height, width]``.

    Labels are uint8 class ids, every other map is float32; normals are ``[height, width, 3]``. `about` says
    what a map's values mean. It can be pickled.
    """

    metadata: Mapping[str, Any]
    """The JSON of the gateway's response without the PNGs: ``models``, ``image``, ``maps`` by task name,
    ``timings_ms``."""

    def __init__(
        self,
        arrays: Mapping[str, Map],
        metadata: Mapping[str, Any],
        source: Callable[[], DecodedImage] | None = None,
        confidences: Mapping[str, Map] | None = None,
        given: DenseMaps | None = None,
    ) -> None:
        """``source`` gives the image, for `overlay`, `points` and `cutout`.

        ``confidences`` are those of the maps, by task name, as large as they are; ``given`` has the maps
        that `points` and `cutout` are made of as the model gave them, where that is known.
        """
        self._arrays = arrays
        self._confidences = confidences or {}
        self.metadata = metadata
        self._source = source
        self._given = given

    @classmethod
    def of(cls, found: DenseMaps, image: DecodedImage | None = None) -> Self:
        """The prediction of ``found`` for ``image``, its maps brought to their size."""
        arrays, maps, sure = {}, {}, {}
        for dense in found.maps:
            arrays[dense.task.name] = values = dense.values()
            maps[dense.task.name] = describe_map(dense, values)
            if dense.confidence is not None:
                sure[dense.task.name] = dense.confidence.values()
        metadata = describe(found, maps).model_dump(mode="json", exclude_none=True)
        shapes = (dense for dense in found.maps if isinstance(dense.task, _SHAPES))
        given = replace(found, maps=tuple(replace(dense, guide=None) for dense in shapes), decoded=None)
        return cls(arrays, metadata, None if image is None else partial(_same, image), sure, given)

    def __getitem__(self, task: str) -> Map:
        """The map of ``task``.

        Raises:
            KeyError: there is none; the message lists those there are.
        """
        if task not in self._arrays:
            raise KeyError(f"{task!r}; there is {', '.join(self._arrays)}")
        return self._arrays[task]

    def __iter__(self) -> Iterator[str]:
        """The tasks' names, in the order requested."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """How many maps there are."""
        return len(self._arrays)

    def __repr__(self) -> str:
        image = self.metadata["image"]
        models = ", ".join(f"{model['name']} {model['version']}" for model in self.metadata["models"])
        return f"<Prediction of {models} for {image['width']} x {image['height']}: {', '.join(self)}>"

    def about(self, task: str) -> Mapping[str, Any]:
        """What is known of a map: its kind, labels and colors, unit, range, frame, size, resampling.

        Raises:
            KeyError: there is no such map.
        """
        self[task]
        about: Mapping[str, Any] = self.metadata["maps"][task]
        return about

    def confidence(self, task: str) -> NDArray[np.float32]:
        """How sure the model is of a map: float32 ``[height, width]``, 0 to 1, as large as the map.

        It is the calibrated probability that the map is right at a pixel; ``about(task)["confidence"]`` says
        by which criterion. It was asked for by ``predict(..., confidence=True)``.

        Raises:
            KeyError: there is no such map, or no confidence in it; the message lists those there are.
        """
        self[task]
        if task not in self._confidences:
            known = ", ".join(self._confidences)
            raise KeyError(
                f"no confidence in {task!r}; "
                + (f"there is one in {known}" if known else "ask for it: predict(..., confidence=True)")
            )
        return self._confidences[task].astype(np.float32, copy=False)

    def confidence_image(self, task: str) -> Image.Image:
        """`confidence` as 8-bit grey, as large as the map: white is sure.

        Raises:
            KeyError: see `confidence`.
        """
        return self._sure(task).to_image(self.confidence(task))

    def image(self, task: str, colormap: str | None = None, legend: bool = False) -> Image.Image:
        """An RGB visualization of a map, as wide as the map, and as high unless it has a legend.

        Args:
            task: its name.
            colormap: of a depth, the colours, such as ``turbo``, ``viridis`` or ``spectral``, or with ``_r``
                after it reversed; near is at their upper end.
            legend: of a depth, a bar of the colours below the map, with the depths that they stand for.

        Raises:
            KeyError: there is no such map.
            InvalidParameterError: the map has no such colours or legend: it is not a depth.
            ValueError: there is no such ``colormap``; the message lists those there are.
        """
        spec = self._spec(task)
        check_style(colormap, legend, [spec])
        return draw(spec, self[task], Style(colormap or DEFAULT, legend))

    def overlay(
        self,
        task: str,
        opacity: float = 0.5,
        image: Image.Image | None = None,
        colormap: str | None = None,
    ) -> Image.Image:
        """The visualization of a map over the image, ``opacity`` from 0 (the image) to 1 (the map).

        ``image`` (upright, of any size) is needed only where the prediction does not know its own;
        ``colormap`` is as in `Prediction.image`.

        Raises:
            KeyError: there is no such map.
            RequestError: the image that a server was sent cannot be read here.
            InvalidParameterError: the map has no such colours: it is not a depth.
            ValueError: ``opacity`` is not from 0 to 1, there is no image, or no such ``colormap``.
        """
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity is {opacity}, it must be from 0 to 1")
        over = self.image(task, colormap)
        if image is not None:
            under = image.convert("RGB").resize(over.size, Image.Resampling.BILINEAR)
        elif self._source is not None:
            under = Image.fromarray(self._source().resized(over.height, over.width))
        else:
            raise ValueError("this prediction does not know its image; give it: overlay(task, image=...)")
        return Image.blend(under, over, opacity)

    def points(
        self, step: int | None = None, edges: bool = False, min_confidence: float | None = None
    ) -> PointCloud:
        """The depth as points in space, in metres where it is metric: see `mtcp_serve.outputs.points`.

        They are those of the server's format ``ply``. Only of a gateway's response with ``size="input"``
        they are not quite: depth edges are sharpest as the model gave them, and the response has the map
        resized. Ask there for ``size="model"``, or for ``ply`` itself.

        Args:
            step: a point for every so many pixels, across and down; by default as many as stay below a
                million.
            edges: at jumps of the depth leave points where the network has them, between two surfaces.
            min_confidence: leave out the points that the model is less sure of than this, 0 to 1.

        Raises:
            KeyError: there is no depth.
            ValueError: the prediction does not know its image.
            InvalidParameterError: ``step`` is less than 1, there would be too many points, or the confidence
                is not known.
        """
        return point_cloud(self._relief(), step, edges, min_confidence)

    def cutout(self, background: str = "transparent", refine: bool = True) -> Image.Image:
        """The image without its background, by the saliency: RGBA, or RGB over the color ``#rrggbb``.

        With ``refine`` its outline follows the edges of the image where that is larger than the model's maps.

        Raises:
            KeyError: there is no probability map.
            ValueError: ``background`` is not a color, or the prediction does not know its image.
        """
        color = None if background == "transparent" else ImageColor.getrgb(background)[:3]
        name = self._first(ProbabilityTask)
        probability = self[name].astype(np.float32, copy=False)
        pixels = self._colors(*probability.shape)
        if refine and self.about(name)["resampled"] != "guided":
            model, (height, width) = self.about(name)["model"], probability.shape
            guide = Guide(lambda: pixels)
            dense = DenseMap(model, self._spec(name), self._as_given(name), height, width, guide=guide)
            probability = dense.values().astype(np.float32, copy=False)
        cut = cutout(pixels, probability)
        return Image.fromarray(cut if color is None else over(cut, color))

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``TASK.png`` (values), ``TASK.visualization.png``, ``maps.npz`` and ``metadata.json``.

        Where it was asked for there is ``TASK_confidence.png`` too. PNGs and ``maps.npz`` (for
        ``numpy.load``) are as the gateway would send them. The folder is made where there is none; files of
        these names are replaced.

        Returns:
            The folder.

        Raises:
            OSError: it cannot be written.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        versions = {model["name"]: model["version"] for model in self.metadata["models"]}
        image = ImageOut.model_validate(self.metadata["image"])
        for task, values in self.items():
            about = KINDS[self.about(task)["kind"]].metadata.model_validate(self.about(task))
            png = to_png(self._spec(task), values, about, versions[about.model], image)
            write_atomic(place / f"{task}.png", png)
            write_atomic(place / f"{task}.visualization.png", write_png(self.image(task)))
            if task in self._confidences:
                spec, sure = self._sure(task), self._confidences[task]
                common = about.model_dump(include={"model", "width", "height"})
                resampled = self.about(task)["confidence"]["resampled"]
                facts = spec.describe(sure, resampled=resampled, **common)
                write_atomic(
                    place / f"{spec.name}.png", to_png(spec, sure, facts, versions[about.model], image)
                )
        archive = ArrayArchive()
        for task, values in self.items():
            archive.add(task, values)
            if task in self._confidences:
                archive.add(task + SUFFIX, self._confidences[task])
        archive.add("metadata", np.array(json.dumps(self.metadata)))
        write_atomic(place / "maps.npz", archive.finish())
        write_atomic(place / "metadata.json", (json.dumps(self.metadata, indent=1) + "\n").encode())
        return place

    def _repr_html_(self) -> str:
        """The image and its maps side by side, for a notebook."""
        try:
            image = None if self._source is None else self._source().image
        except RequestError:  # the server could read what this machine cannot
            image = None
        figures = [] if image is None else [_figure("image", image)]
        for task in self:
            spec = self._spec(task)
            figures.append(_figure(f"{task}: {spec.caption(self[task])}", self.image(task)))
            if task in self._confidences:
                sure = self._sure(task)
                text = f"{sure.name}: {sure.caption(self._confidences[task])}"
                figures.append(_figure(text, self.confidence_image(task)))
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(figures)}</div>'

    def _relief(self) -> Relief:
        name = self._first(DepthTask)
        if self._given is not None:
            return replace(Relief.of(self._given), colors=self._colors)
        depth, spec = self[name].astype(np.float32, copy=False), self._spec(name)
        normals = NormalsTask.first_of(map(self._spec, self))
        model = self._model_of(name)
        size = min(model["height"], depth.shape[0]), min(model["width"], depth.shape[1])
        image = self.metadata["image"]
        camera = Camera(width=image["width"], height=image["height"], **image["camera"])
        directions = None if normals is None else partial(sized, normals, self[normals.name])
        height, width = depth.shape
        known = self._confidences.get(name)
        sure = None if known is None else partial(sized, self._sure(name), known)
        return Relief(spec, nearest(depth, *size), height, width, camera, self._colors, directions, sure)

    def _as_given(self, name: str) -> Map:
        """A map as the model gave it; where that is not known, at no more than the model's size."""
        if self._given is not None:
            return next(dense.raw for dense in self._given.maps if dense.task.name == name)
        values, model = self[name], self._model_of(name)
        size = min(model["width"], values.shape[1]), min(model["height"], values.shape[0])
        found: Map = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))
        return found

    def _model_of(self, name: str) -> Mapping[str, Any]:
        """What is known of the model that gave a map."""
        models = {model["name"]: model for model in self.metadata["models"]}
        found: Mapping[str, Any] = models[self.about(name)["model"]]
        return found

    def _first(self, kind: type[TaskSpec]) -> str:
        found = kind.first_of(map(self._spec, self))
        if found is None:
            raise KeyError(f"a map of kind {kind.model_fields['kind'].default}; there is {', '.join(self)}")
        return found.name

    def _colors(self, height: int, width: int) -> NDArray[np.uint8]:
        if self._source is None:
            raise ValueError("this prediction does not know its image; what predict and stream give does")
        return self._source().resized(height, width)

    def _sure(self, task: str) -> ConfidenceTask:
        """The confidence in the map of ``task``, as far as its metadata tells."""
        height, width = self._confidences[task].shape
        criterion = self.about(task)["confidence"]["criterion"]
        about = Confidence(output=task + SUFFIX, height=height, width=width, criterion=criterion)
        return ConfidenceTask.beside(self._spec(task), about)

    def _spec(self, task: str) -> TaskSpec:
        about = self.about(task)
        return KINDS[about["kind"]].of_metadata(task, about)


def _same(image: DecodedImage) -> DecodedImage:
    """``image``: unlike a lambda it can be pickled."""
    return image


def _figure(text: str, image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    data = b64encode(write_png(small)).decode("ascii")
    return (
        f'<figure style="margin:0;max-width:{THUMBNAIL}px"><img alt="{escape(text)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(text)}</figcaption></figure>'
    )
