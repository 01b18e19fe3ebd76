"""What is written of a photo, or of a frame of a video."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.images import Photo
from mtcp_serve.inference.pipeline import DenseMaps, Size
from mtcp_serve.inference.registry import Choice
from mtcp_serve.offline.results import METADATA_FILE, fingerprints, metadata, publish
from mtcp_serve.offline.video import Film
from mtcp_serve.outputs.formats.base import encode_maps
from mtcp_serve.outputs.formats.npz import NpzWriter
from mtcp_serve.outputs.metadata import describe
from mtcp_serve.outputs.visualize import overview
from mtcp_serve.utils.atomic import staged


@dataclass(frozen=True)
class Wanted:
    """Which maps are written, how large, and what beside their PNGs; ``film`` says what of a video."""

    choices: Sequence[Choice]
    size: Size = "input"
    arrays: bool = True
    """Write ``maps.npz``."""
    overview: bool = True
    """Write ``overview.png``."""
    film: Film = field(default_factory=Film)
    overwrite: bool = False
    """Make again what is there already."""
    camera: CameraRequest = field(default_factory=CameraRequest)
    """What the command line says of the camera."""

    def made_from(self, source: dict[str, Any]) -> dict[str, Any]:
        """What decides the maps of ``source``, for `mtcp_serve.offline.results.metadata`."""
        options: dict[str, Any] = {"size": self.size, "arrays": self.arrays, "overview": self.overview}
        if self.camera != CameraRequest():
            options["camera"] = asdict(self.camera)
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
    photo: Photo | None,
    wanted: Wanted,
    made_from: dict[str, Any],
    pool: Executor,
) -> None:
    """Write the files of one photo or frame into ``folder``: all of them, or none.

    ``photo`` is for the overview, at any size; there is none without it.

    Raises:
        NoRoomError: the disk is full.
        OSError: a file cannot be written.
    """
    with staged(folder) as staging:
        maps = {}
        for name, encoded in encode_maps(prediction, pool).items():
            staging.write(f"{name}.png", encoded.png)
            maps[name] = encoded.metadata
        if wanted.arrays:
            npz = NpzWriter(pool)
            staging.write("maps.npz", npz.finish(npz.add(prediction)))
        if photo is not None:
            sheet = BytesIO()
            overview(photo, prediction).save(sheet, "PNG")
            staging.write("overview.png", sheet.getvalue())
        names = sorted(path.name for path in staging.folder.iterdir())
        answer = describe(prediction, maps).model_dump(mode="json", exclude_none=True)
        staging.write(METADATA_FILE, metadata(made_from, names, answer))
        publish(staging, folder)
