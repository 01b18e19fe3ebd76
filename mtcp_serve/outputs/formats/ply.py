"""``ply``: the depth as a point cloud, for Open3D, MeshLab, CloudCompare and Blender."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel

from mtcp_serve.inference.camera import FRAME
from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut, TaskSpec
from mtcp_serve.outputs.formats.base import Writer, needs_depth
from mtcp_serve.outputs.points import PointCloud, Relief, depth_of, point_cloud, unit_of

_POINT = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")),
        *((name, "u1") for name in ("red", "green", "blue")),
    ]
)


class PlyWriter(Writer):
    """Binary PLY: position, normal and colour of every point; comments say the frame and the unit.

    With ``confidence`` or ``min_confidence`` each point has the property ``confidence`` too.
    """

    name = "ply"
    media_type = "application/x-ply"
    file_name = "points.ply"
    description = (
        "the depth as a point cloud with normals and colours (binary PLY); `step` thins it out, `edges` "
        "keeps what the network draws between two surfaces, `min_confidence` leaves out what it is unsure of"
    )
    one_image = True
    needs_image = True
    options = frozenset({"step", "edges", "confidence", "min_confidence"})

    @classmethod
    def used(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The depth, and the normals where they are asked for."""
        return needs_depth(cls.name, tasks)

    @classmethod
    def sure(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The depth."""
        return list(tasks[:1])

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        camera = prediction.camera
        comments = [
            f"mtcp-serve {prediction.models[0].name} {prediction.models[0].version}",
            f"frame {FRAME}",
            f"unit {unit_of(depth_of(prediction))}",
            f"camera {camera.fx:.3f} {camera.fy:.3f} {camera.cx:.3f} {camera.cy:.3f} {camera.source}",
        ]
        wanted = self.wanted
        cloud = point_cloud(Relief.of(prediction), wanted.step, wanted.edges, wanted.min_confidence)
        self._file = to_ply(cloud, comments)
        return {}

    def finish(self, document: BaseModel) -> bytes:
        """The file."""
        return self._file


def to_ply(cloud: PointCloud, comments: Sequence[str] = ()) -> bytes:
    """The points as a binary little-endian PLY file."""
    sure = cloud.confidence
    kind = _POINT if sure is None else np.dtype([*_POINT.descr, ("confidence", "<f4")])
    points = np.empty(len(cloud.positions), kind)
    if sure is not None:
        points["confidence"] = sure
    for array, names in ((cloud.positions, "xyz"), (cloud.normals, ("nx", "ny", "nz"))):
        for axis, name in enumerate(names):
            points[name] = array[:, axis]
    for axis, name in enumerate(("red", "green", "blue")):
        points[name] = cloud.colors[:, axis]
    types = {"f": "float", "u": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {comment}" for comment in comments),
        f"element vertex {len(points)}",
        *(f"property {types[kind[name].kind]} {name}" for name in kind.names or ()),
        "end_header",
    ]
    return ("\n".join(header) + "\n").encode("ascii", "replace") + points.tobytes()
