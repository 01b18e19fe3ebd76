"""The pinhole camera of an image: which way each pixel looks, and so where a depth lies in space.

Pixel centres are at integers, as in OpenCV and ROS: the middle of an image ``width`` pixels wide is
``(width - 1) / 2``. Points are in the frame of the normals and of glTF: x right, y up, z towards the camera,
right-handed, the camera at the origin; what it sees has negative z.
"""

from dataclasses import dataclass, replace
from math import atan, degrees, radians, tan
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.kinds.depth import FOV_X

Source = Literal["request", "exif", "manifest", "assumed"]
"""Who says what the camera is: the request, the file's EXIF, the model's manifest, or nobody."""
ASSUMED_FOV_X: Final = 60.0
"""Field of view across the longer side, degrees, where nobody says: about a 31 mm lens on 35 mm film."""
FRAME: Final = "x right, y up, z towards the camera"
FOCAL_PX: Final = (0.001, 1e9)
"""Least and most focal length of a request, pixels: points are finite in single precision, and the three
decimals that responses have are not all 0."""


class CameraError(ValueError):
    """No camera can have these values; the message says what is wrong with them."""


@dataclass(frozen=True)
class CameraRequest:
    """What a request says of the camera: no more than one of its three fields.

    Numbers of any kind are taken, also NumPy's, and intrinsics as any four of them; they are kept as floats.

    Raises:
        CameraError: more than one is given, or a value is no number or out of its range.
    """

    fov_x: float | None = None
    """Field of view from the left to the right edge, degrees, within `FOV_X`."""
    focal_px: float | None = None
    """Focal length in pixels of the upright image, within `FOCAL_PX`."""
    intrinsics: tuple[float, float, float, float] | None = None
    """``fx, fy, cx, cy`` in pixels of the upright image: focal lengths within `FOCAL_PX`, and a principal
    point no further from 0 than those may be."""

    def __post_init__(self) -> None:
        given = [name for name in ("fov_x", "focal_px", "intrinsics") if getattr(self, name) is not None]
        if len(given) > 1:
            raise CameraError(f"{' and '.join(given)} are given; give one of them")
        for name in given:
            value = getattr(self, name)
            kept = _intrinsics(value) if name == "intrinsics" else _number(name, value)
            object.__setattr__(self, name, kept)
        if self.fov_x is not None and not FOV_X[0] <= self.fov_x <= FOV_X[1]:
            raise CameraError(f"fov_x is {self.fov_x}; it is in degrees, from {FOV_X[0]:g} to {FOV_X[1]:g}")
        least, most = FOCAL_PX
        if self.focal_px is not None and not least <= self.focal_px <= most:
            raise CameraError(f"focal_px is {self.focal_px}; it is in pixels, from {least:g} to {most:g}")
        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
            if not (least <= fx <= most and least <= fy <= most and abs(cx) <= most and abs(cy) <= most):
                raise CameraError(
                    f"intrinsics are {fx},{fy},{cx},{cy}; they are fx,fy,cx,cy in pixels, "
                    f"fx and fy from {least:g} to {most:g}, cx and cy at most that far from 0"
                )

    def query(self) -> dict[str, str]:
        """The parameters of a request that say the same."""
        if self.intrinsics is not None:
            return {"intrinsics": ",".join(map(repr, self.intrinsics))}
        given = {"fov_x": self.fov_x, "focal_px": self.focal_px}
        return {name: repr(value) for name, value in given.items() if value is not None}

    @classmethod
    def parse(cls, fov_x: float | None, focal_px: float | None, intrinsics: str | None) -> Self:
        """The request whose intrinsics are written ``fx,fy,cx,cy``.

        Raises:
            CameraError: ``intrinsics`` are not four numbers, or what the class raises.
        """
        if intrinsics is None:
            return cls(fov_x, focal_px)
        try:
            fx, fy, cx, cy = map(float, intrinsics.split(","))
        except ValueError:
            raise CameraError(f"intrinsics are {intrinsics!r}; write four numbers: fx,fy,cx,cy") from None
        return cls(fov_x, focal_px, (fx, fy, cx, cy))


def _number(name: str, given: Any) -> float:
    try:
        return float(given)
    except (TypeError, ValueError):
        raise CameraError(f"{name} is {given!r}; it is a number") from None


def _intrinsics(given: Any) -> tuple[float, float, float, float]:
    try:
        fx, fy, cx, cy = map(float, given)
    except (TypeError, ValueError):
        raise CameraError(f"intrinsics are {given!r}; give four numbers: fx, fy, cx, cy") from None
    return fx, fy, cx, cy


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion: focal lengths and principal point in pixels of its image."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    source: Source

    @classmethod
    def of_focal(cls, width: int, height: int, fx: float, fy: float, source: Source) -> Self:
        """The camera that looks straight through the middle of its image."""
        return cls(width, height, fx, fy, (width - 1) / 2, (height - 1) / 2, source)

    @classmethod
    def of_fov_x(cls, width: int, height: int, fov_x: float, source: Source) -> Self:
        """The camera with square pixels that sees ``fov_x`` degrees from the left to the right edge."""
        focal = width / 2 / tan(radians(fov_x) / 2)
        return cls.of_focal(width, height, focal, focal, source)

    @property
    def fov_x(self) -> float:
        """Degrees from the left to the right edge."""
        return degrees(atan((self.cx + 0.5) / self.fx) + atan((self.width - 0.5 - self.cx) / self.fx))

    def resized(self, width: int, height: int) -> Self:
        """The same camera, its image stretched to ``width`` x ``height`` pixels."""
        across, down = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * across,
            fy=self.fy * down,
            cx=(self.cx + 0.5) * across - 0.5,
            cy=(self.cy + 0.5) * down - 0.5,
        )

    def unproject(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """The points ``[height, width, 3]`` of a map of depths along the view axis, of this camera's size.

        They are in `FRAME`, in the unit of ``depth``.
        """
        across = (np.arange(self.width, dtype=np.float32) - np.float32(self.cx)) / np.float32(self.fx)
        down = (np.arange(self.height, dtype=np.float32) - np.float32(self.cy)) / np.float32(self.fy)
        return np.stack([across * depth, -down[:, None] * depth, -depth], axis=-1)


def find_camera(
    width: int,
    height: int,
    request: CameraRequest | None = None,
    exif: tuple[float, float] | None = None,
    default_fov_x: float | None = None,
) -> Camera:
    """The camera of an upright image of ``width`` x ``height`` pixels, by the first who knows it.

    The ``request`` goes before the ``exif`` (focal lengths across and down, pixels), that before the manifest
    (``default_fov_x``, degrees over the longer side), and where nobody says it is `ASSUMED_FOV_X`.
    """
    if request is not None:
        if request.intrinsics is not None:
            return Camera(width, height, *request.intrinsics, "request")
        if request.focal_px is not None:
            return Camera.of_focal(width, height, request.focal_px, request.focal_px, "request")
        if request.fov_x is not None:
            return Camera.of_fov_x(width, height, request.fov_x, "request")
    if exif is not None:
        return Camera.of_focal(width, height, *exif, "exif")
    longer = Camera.of_fov_x(max(width, height), 1, default_fov_x or ASSUMED_FOV_X, "assumed").fx
    return Camera.of_focal(width, height, longer, longer, "manifest" if default_fov_x else "assumed")
