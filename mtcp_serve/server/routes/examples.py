"""Examples for the API docs. Tests check that the schemas allow them and that the shipped model fits them."""

from typing import Any

_MODEL = {"name": "mtcp-lite", "version": "2", "width": 384, "height": 288}

PREDICT: dict[str, Any] = {
    "models": [_MODEL],
    "image": {
        "width": 1200,
        "height": 900,
        "format": "JPEG",
        "mode": "RGB",
        "exif_rotated": False,
        "animated": False,
        "camera": {"fx": 1039.23, "fy": 1039.23, "cx": 599.5, "cy": 449.5, "source": "assumed"},
    },
    "maps": {
        "semseg": {
            "model": "mtcp-lite",
            "title": "Objects",
            "width": 1200,
            "height": 900,
            "resampled": "majority",
            "png": "iVBORw0KGgo...",
            "kind": "labels",
            "dataset": "objects_rooms",
            "labels": [
                {"id": 0, "name": "other", "color": "#000000"},
                {"id": 15, "name": "person", "color": "#c08080"},
            ],
            "present": [0, 15],
            "ignore_index": 255,
        },
        "depth": {
            "model": "mtcp-lite",
            "title": "Distance",
            "width": 1200,
            "height": 900,
            "resampled": "bilinear",
            "png": "iVBORw0KGgo...",
            "kind": "depth",
            "unit": "m",
            "metric": True,
            "png_scale": 0.001,
            "png_offset": 0.0,
            "min": 0.8,
            "max": 6.1,
        },
    },
    "timings_ms": {"queue": 0.2, "decode": 4.1, "infer": 120.0, "encode": 9.0},
}

BATCH: dict[str, Any] = {
    "results": [
        {"index": 0, "name": "a.jpg", "status": 200, "response": PREDICT},
        {
            "index": 1,
            "name": "b.txt",
            "status": 400,
            "error": {
                "code": "invalid_image",
                "message": "the bytes are not an image in a format that this server reads",
                "hint": "send a complete JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file",
            },
        },
    ]
}

MODELS: dict[str, Any] = {
    "models": [
        {
            "name": "mtcp-lite",
            "version": "2",
            "default": True,
            "device": "cpu",
            "input": {"height": 288, "width": 384, "resize": "stretch"},
            "tasks": [
                {
                    "name": "depth",
                    "output": "depth",
                    "title": "Distance",
                    "kind": "depth",
                    "dtype": "float32",
                    "unit": "m",
                    "metric": True,
                    "range": [0.1, 10.0],
                }
            ],
            "license": "Apache-2.0",
        }
    ],
    "tasks": {"depth": "mtcp-lite"},
}
