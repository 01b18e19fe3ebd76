"""``cutout``: the subject of the image without its background, as a PNG file."""

from collections.abc import Sequence

from PIL import ImageColor
from pydantic import BaseModel

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut, ProbabilityTask, TaskSpec
from mtcp_serve.outputs.cutout import cut_out, saliency_of
from mtcp_serve.outputs.formats.base import Writer
from mtcp_serve.outputs.png_file import write_png


class CutoutWriter(Writer):
    """The image, as transparent as the saliency says, or over the colour ``background``."""

    name = "cutout"
    media_type = "image/png"
    file_name = "cutout.png"
    description = (
        "the image without its background, by the saliency: RGBA PNG, or RGB over the colour `background`"
    )
    one_image = True
    by_name_only = True
    needs_image = True
    options = frozenset({"background", "refine"})

    @classmethod
    def used(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The first probability."""
        found = ProbabilityTask.first_of(tasks)
        if found is None:
            names = ", ".join(task.name for task in tasks)
            raise InvalidParameterError(
                f"format {cls.name} needs a map of kind probability, but the tasks are {names}",
                "name the saliency, or leave tasks out",
            )
        return [found]

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        color = self.wanted.background
        red_green_blue = None if color == "transparent" else ImageColor.getrgb(color)[:3]
        cut, saliency = cut_out(prediction, red_green_blue, self.wanted.refine is not False)
        self._file = write_png(cut)
        return {saliency_of(prediction).task.name: saliency}

    def finish(self, document: BaseModel) -> bytes:
        """The file."""
        return self._file
