"""``usdz``: the depth as a surface with the image on it, for USD and for AR on iPhones (extra ``usd``)."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut, TaskSpec
from mtcp_serve.outputs.formats.base import Writer, needs_depth, needs_package
from mtcp_serve.outputs.scene import Scene

if TYPE_CHECKING:
    from pxr import Usd, UsdShade

_STAGE: Final = "scene.usdc"
_TEXTURE: Final = "image.jpg"


class UsdzWriter(Writer):
    """USD, zipped: the mesh of format glb under a transform that puts it on the ground, the image unlit.

    With ``confidence`` or ``min_confidence`` vertices have the primvar ``confidence`` (float32) too.
    """

    name = "usdz"
    media_type = "model/vnd.usdz+zip"
    file_name = "scene.usdz"
    description = (
        "the surface of `glb` as USDZ, for AR Quick Look and whatever else reads USD; the transform of "
        "`/Scene` puts it on the ground, without it the camera is at the origin"
    )
    one_image = True
    needs_image = True
    options = frozenset({"confidence", "min_confidence"})

    @classmethod
    def used(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The depth, where USD is installed."""
        needs_package(cls.name, "USD", "pxr", "usd", "glb")
        return needs_depth(cls.name, tasks)[:1]

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        self._file = to_usdz(Scene.of(prediction, self.wanted.min_confidence))
        return {}

    def finish(self, document: BaseModel) -> bytes:
        """The file."""
        return self._file


def to_usdz(scene: Scene) -> bytes:
    """``scene`` as a USDZ package; its facts are the stage's custom data.

    Raises:
        OSError: a temporary file cannot be written; USD writes to paths only.
    """
    from pxr import Sdf, Usd

    with TemporaryDirectory(dir=_place()) as place:
        folder = Path(place)
        (folder / _TEXTURE).write_bytes(scene.texture)
        stage = Usd.Stage.CreateNew(str(folder / _STAGE))
        _fill(stage, scene)
        stage.GetRootLayer().Save()
        del stage
        with Sdf.ZipFileWriter.CreateNew(str(folder / "package")) as package:
            for name in (_STAGE, _TEXTURE):  # the stage has to be the first
                package.AddFile(str(folder / name), name)
        return (folder / "package").read_bytes()


def _place() -> str:
    """The folder for temporary files; where there is none, the memory that containers have all the same."""
    try:
        return gettempdir()
    except FileNotFoundError:
        return "/dev/shm"  # noqa: S108  # what is made in it is this process's alone


def _fill(stage: "Usd.Stage", scene: Scene) -> None:
    from pxr import Gf, Sdf, UsdGeom, UsdShade, Vt

    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.GetRootLayer().customLayerData = scene.facts
    root = UsdGeom.Xform.Define(stage, "/Scene")
    stage.SetDefaultPrim(root.GetPrim())
    mesh = scene.mesh
    if len(mesh.triangles) == 0:
        return
    low, high = mesh.positions.min(0), mesh.positions.max(0)
    ground = np.array([(low[0] + high[0]) / 2, low[1], high[2]], np.float64)
    root.AddTranslateOp().Set(Gf.Vec3d(*(-ground).tolist()))
    surface = UsdGeom.Mesh.Define(stage, "/Scene/Depth")
    surface.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(mesh.positions))
    surface.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([low, high])))
    surface.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.triangles), 3, np.int32)))
    surface.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.triangles.astype(np.int32).ravel()))
    surface.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    surface.CreateDoubleSidedAttr(True)
    variables = UsdGeom.PrimvarsAPI(surface)
    places = mesh.places.copy()
    places[:, 1] = 1 - places[:, 1]  # USD counts up from the lower edge
    variables.CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
    ).Set(Vt.Vec2fArray.FromNumpy(places))  # fmt: skip
    if mesh.confidence is not None:
        variables.CreatePrimvar(
            "confidence", Sdf.ValueTypeNames.FloatArray, UsdGeom.Tokens.vertex
        ).Set(Vt.FloatArray.FromNumpy(mesh.confidence))  # fmt: skip
    UsdShade.MaterialBindingAPI.Apply(surface.GetPrim()).Bind(_image(stage))


def _image(stage: "Usd.Stage") -> "UsdShade.Material":
    """A material that shines as the image does, whatever light there is."""
    from pxr import Gf, Sdf, UsdShade

    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, "/Scene/Image")
    shader, reader, texture = (
        UsdShade.Shader.Define(stage, f"/Scene/Image/{name}") for name in ("Shader", "Places", "Texture")
    )
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", types.Asset).Set(_TEXTURE)
    texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        texture.CreateInput(axis, types.Token).Set("clamp")
    texture.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", types.Color3f).Set(Gf.Vec3f(0))
    shader.CreateInput("roughness", types.Float).Set(1.0)
    shader.CreateInput("ior", types.Float).Set(1.0)  # air: it reflects nothing
    shader.CreateInput("emissiveColor", types.Color3f).ConnectToSource(
        texture.CreateOutput("rgb", types.Float3)
    )
    material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", types.Token))
    return material
