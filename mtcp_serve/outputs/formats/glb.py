"""``glb``: the depth as a surface with the image on it, for browsers, Blender and phones."""

import json
import struct
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut, TaskSpec
from mtcp_serve.outputs.formats.base import Writer, needs_depth
from mtcp_serve.outputs.scene import Scene

_FLOAT, _UINT32 = 5126, 5125  # component types, and what the buffers are for, as glTF 2.0 numbers them
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_CLAMP, _LINEAR = 33071, 9729


class GlbWriter(Writer):
    """glTF 2.0 binary: one mesh, torn at depth edges, the image as its unlit texture.

    With ``confidence`` or ``min_confidence`` each vertex has the attribute ``_CONFIDENCE`` (float32) too.
    """

    name = "glb"
    media_type = "model/gltf-binary"
    file_name = "scene.glb"
    description = (
        "the depth as a surface with the image on it, torn where depth jumps, and with `min_confidence` "
        "where the model is unsure (glTF 2.0 binary)"
    )
    one_image = True
    needs_image = True
    options = frozenset({"confidence", "min_confidence"})

    @classmethod
    def used(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The depth."""
        return needs_depth(cls.name, tasks)[:1]

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        self._file = to_glb(Scene.of(prediction, self.wanted.min_confidence))
        return {}

    def finish(self, document: BaseModel) -> bytes:
        """The file."""
        return self._file


def to_glb(scene: Scene) -> bytes:
    """``scene`` as a glTF 2.0 binary file; its facts are the extras of the scene in it."""
    mesh = scene.mesh
    parts = [
        (mesh.positions.tobytes(), _ARRAY_BUFFER),
        (mesh.places.tobytes(), _ARRAY_BUFFER),
        (mesh.triangles.tobytes(), _ELEMENT_ARRAY_BUFFER),
        (scene.texture, None),
    ]
    if mesh.confidence is not None:
        parts.append((mesh.confidence.tobytes(), _ARRAY_BUFFER))
    views: list[dict[str, Any]] = []
    body = bytearray()
    for data, target in parts:
        view = {"buffer": 0, "byteOffset": len(body), "byteLength": len(data)}
        views.append(view if target is None else {**view, "target": target})
        body += data + bytes(-len(data) % 4)
    content: dict[str, Any] = {"extras": scene.facts}
    document = {"asset": {"version": "2.0", "generator": "mtcp-serve"}, "scene": 0, "scenes": [content]}
    if len(mesh.triangles) == 0:  # glTF allows no mesh without triangles: there is only the scene
        return _pack(document, b"")
    content["nodes"] = [0]
    low, high = mesh.positions.min(axis=0), mesh.positions.max(axis=0)
    attributes = {"POSITION": 0, "TEXCOORD_0": 1}
    accessors: list[dict[str, Any]] = [
        {
            "bufferView": 0, "componentType": _FLOAT, "count": len(mesh.positions), "type": "VEC3",
            "min": low.tolist(), "max": high.tolist(),
        },
        {"bufferView": 1, "componentType": _FLOAT, "count": len(mesh.places), "type": "VEC2"},
        {"bufferView": 2, "componentType": _UINT32, "count": mesh.triangles.size, "type": "SCALAR"},
    ]  # fmt: skip
    if mesh.confidence is not None:
        attributes["_CONFIDENCE"] = len(accessors)
        accessors.append(
            {"bufferView": 4, "componentType": _FLOAT, "count": len(mesh.confidence), "type": "SCALAR"}
        )
    document |= {
        "extensionsUsed": ["KHR_materials_unlit"],
        "nodes": [{"mesh": 0, "name": "depth"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 2, "material": 0}]}],
        "materials": [
            {
                "doubleSided": True,
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0,
                    "roughnessFactor": 1,
                },
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": _LINEAR, "minFilter": _LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}],
        "images": [{"bufferView": 3, "mimeType": "image/jpeg"}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }  # fmt: skip
    return _pack(document, bytes(body))


def _pack(document: dict[str, Any], body: bytes) -> bytes:
    """The container: a header, the JSON chunk, and the binary chunk where there is one."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if body:
        chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
