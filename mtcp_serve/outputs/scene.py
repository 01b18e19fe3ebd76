"""What files of a scene hold, whatever their format: the surface of the depth, the image on it, and facts."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Self

from PIL import Image

from mtcp_serve.inference.camera import FRAME
from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.outputs.mesh import Mesh, surface
from mtcp_serve.outputs.points import Relief, depth_of, pixels_of, unit_of

TEXTURE_SIDE: Final = 2048
"""Longest side of the image on the surface, pixels."""
_QUALITY: Final = 90


@dataclass(frozen=True)
class Scene:
    """A `Mesh`, the image to lay on it as a JPEG file, and what to say of both as JSON."""

    mesh: Mesh
    texture: bytes
    facts: dict[str, Any]

    @classmethod
    def of(cls, prediction: DenseMaps, min_confidence: float | None = None) -> Self:
        """The scene of a prediction's first depth map; see `mtcp_serve.outputs.mesh.surface`.

        Raises:
            InvalidParameterError: there is a ``min_confidence``, and the confidence is not known.
            ValueError: there is no depth, or the prediction was not told to keep the image.
        """
        dense, camera = depth_of(prediction), prediction.camera
        shrink = min(TEXTURE_SIDE / max(dense.height, dense.width), 1)
        height, width = max(round(dense.height * shrink), 1), max(round(dense.width * shrink), 1)
        file = BytesIO()
        Image.fromarray(pixels_of(prediction, height, width)).save(file, "JPEG", quality=_QUALITY)
        facts = {
            "model": f"{dense.model} {prediction.models[0].version}",
            "frame": FRAME,
            "unit": unit_of(dense),
            "camera": {
                "fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy, "source": camera.source,
            },
        }  # fmt: skip
        return cls(surface(Relief.of(prediction), min_confidence), file.getvalue(), facts)
