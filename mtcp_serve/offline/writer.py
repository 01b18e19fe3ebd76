"""What is written of an image, or of a frame of a video."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.distances import Distances
from mtcp_serve.inference.images import DecodedImage
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps, Size
from mtcp_serve.inference.registry import Choice
from mtcp_serve.kinds import MapOut
from mtcp_serve.offline.results import METADATA_FILE, fingerprints, metadata, publish
from mtcp_serve.offline.video import VideoOptions
from mtcp_serve.outputs.formats.base import Options, Writer, encode_maps
from mtcp_serve.outputs.formats.npz import NpzWriter
from mtcp_serve.outputs.metadata import describe, describe_map
from mtcp_serve.outputs.picture import Style
from mtcp_serve.outputs.png_file import write_png
from mtcp_serve.outputs.visualize import overview
from mtcp_serve.utils.atomic import Staging, staged


@dataclass(frozen=True)
class OutputRequest:
    """Which maps are written, how large, and what beside their PNGs; ``video`` says what of a video."""

    choices: Sequence[Choice]
    """With their confidences where those are requested too."""
    size: Size = "input"
    arrays: bool = True
    """Write ``maps.npz``."""
    overview: bool = True
    """Write ``overview.png``."""
    video: VideoOptions = field(default_factory=VideoOptions)
    overwrite: bool = False
    """Make again what is there already."""
    camera: CameraRequest = field(default_factory=CameraRequest)
    """What the command line says of the camera."""
    formats: tuple[type[Writer], ...] = ()
    """Response formats to write a file of each, instead of PNGs, arrays and overview."""
    options: Options = field(default_factory=Options)
    """What is said of the formats."""
    style: Style = field(default_factory=Style)
    """How depth is drawn in the overview and in rendered videos."""
    refine: bool = False
    """Maps follow the edges of the image where they are enlarged."""
    distances: Distances | None = None
    """What is known of the depth of the one image."""

    @property
    def keep_image(self) -> bool:
        """Whether a format needs the image itself."""
        return any(form.needs_image for form in self.formats)

    def made_from(self, source: dict[str, Any]) -> dict[str, Any]:
        """What decides the maps of ``source``, for `mtcp_serve.offline.results.metadata`."""
        options: dict[str, Any] = {"size": self.size, "arrays": self.arrays, "overview": self.overview}
        if self.camera != CameraRequest():
            options["camera"] = asdict(self.camera)
        if self.style != Style():
            options["style"] = asdict(self.style)
        sure = [choice.task.name for choice in self.choices if choice.confidence is not None]
        if sure:
            options["confidence"] = sure
        if self.refine:
            options["refine"] = True
        if self.distances is not None:
            options["distances"] = self.distances.points.tolist()
        if self.formats:
            options["formats"] = {form.name: asdict(self.options) for form in self.formats}
        return {
            "source": source,
            "models": fingerprints(choice.manifest for choice in self.choices),
            "options": {"tasks": [choice.task.name for choice in self.choices], **options},
        }


@dataclass(frozen=True)
class Done:
    """Results that are complete: whether they were before, what was wrong with the file, what to know."""

    skipped: bool = False
    fault: str | None = None
    notes: tuple[str, ...] = ()


def write_result(
    folder: Path,
    prediction: DenseMaps,
    image: DecodedImage | None,
    requested: OutputRequest,
    made_from: dict[str, Any],
    pool: Executor,
) -> None:
    """Write the files of one image or frame into ``folder``: all of them, or none.

    ``image`` is for the overview, at any size.

    Raises:
        NoRoomError: the disk is full.
        OSError: a file cannot be written.
    """
    with staged(folder) as staging:
        if requested.formats:
            maps = _write_formats(staging, prediction, requested, pool)
        else:
            maps = _write_files(staging, prediction, image, requested, pool)
        names = sorted(path.name for path in staging.folder.iterdir())
        response = describe(prediction, maps).model_dump(mode="json", exclude_none=True)
        staging.write(METADATA_FILE, metadata(made_from, names, response))
        publish(staging, folder)


def _write_files(
    staging: Staging,
    prediction: DenseMaps,
    image: DecodedImage | None,
    requested: OutputRequest,
    pool: Executor,
) -> dict[str, MapOut]:
    maps = {}
    for name, encoded in encode_maps(prediction, pool).items():
        for file, data in encoded.files(name):
            staging.write(file, data)
        maps[name] = encoded.metadata
    if requested.arrays:
        npz = NpzWriter(pool)
        staging.write(NpzWriter.file_name, npz.finish(npz.add(prediction)))
    if requested.overview and image is not None:
        staging.write("overview.png", write_png(overview(image, prediction, requested.style)))
    return maps


def _write_formats(
    staging: Staging, prediction: DenseMaps, requested: OutputRequest, pool: Executor
) -> dict[str, MapOut]:
    """A file of each format; what there is to say of the maps that they are made of."""
    told: dict[str, MapOut] = {}
    shown: dict[str, DenseMap] = {}
    maps_last = sorted(requested.formats, key=lambda form: not form.needs_image)  # what they hold is told
    for form in maps_last:
        used = form.used([dense.task for dense in prediction.maps])
        maps = tuple(dense for dense in prediction.maps if dense.task in used)
        if not requested.options.confidence and "min_confidence" not in form.options:
            maps = tuple(replace(dense, confidence=None) for dense in maps)
        writer = form(pool, requested.options)
        document = writer.add(replace(prediction, maps=maps))
        staging.write(form.file_name.format(task=used[0].name), writer.finish(document))
        told |= {name: _without_files(about) for name, about in document.maps.items()}
        shown |= {dense.task.name: dense for dense in maps}
    left = [dense for name, dense in shown.items() if name not in told]
    told |= zip((dense.task.name for dense in left), pool.map(_describe, left), strict=True)
    return {dense.task.name: told[dense.task.name] for dense in prediction.maps if dense.task.name in told}


def _describe(dense: DenseMap) -> MapOut:
    return describe_map(dense, dense.values())


def _without_files(about: MapOut) -> MapOut:
    """``about`` without the files that format json carries in it."""
    sure = about.confidence and about.confidence.model_copy(update={"png": None})
    return about.model_copy(update={"png": None, "visualization": None, "confidence": sure})
