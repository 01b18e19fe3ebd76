"""Time and bytes of response formats."""

import re
import time
from importlib.util import find_spec
from io import BytesIO
from typing import Final

import httpx
from PIL import Image

QUERIES: Final = {
    "npz, depth": "format=npz&tasks=depth",
    "npz, all maps": "format=npz",
    "json, all maps": "format=json",
    "json, all maps, refined": "format=json&refine=true",
    "npz, all maps, refined": "format=npz&refine=true",
    "png, depth (16-bit)": "format=png&tasks=depth",
    "png, depth in colors": "format=png&tasks=depth&colormap=turbo&legend=true",
    "ply": "format=ply",
    "glb": "format=glb",
    "cutout": "format=cutout",
    "cutout, not refined": "format=cutout&refine=false",
    "exr, all maps": "format=exr",
}
_BEFORE: Final = ("queue", "decode", "infer")


def measure_formats(url: str, image: Image.Image, rounds: int) -> dict[str, dict[str, float]]:
    """By format: bytes, least milliseconds beyond inference, and their share of the least inference."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    queries = {name: query for name, query in QUERIES.items() if "exr" not in query or find_spec("OpenEXR")}
    sizes: dict[str, int] = {}
    beyond: dict[str, list[float]] = {name: [] for name in queries}
    inferences = []
    with httpx.Client(base_url=url, timeout=120, headers={"Content-Type": "image/jpeg"}) as client:
        for _ in range(rounds):
            for name, query in queries.items():
                start = time.perf_counter()
                answer = client.post(f"/predict?{query}", content=buffer.getvalue())
                total = 1000 * (time.perf_counter() - start)
                answer.raise_for_status()
                spent = _stages(answer.headers["server-timing"])
                sizes[name] = len(answer.content)
                beyond[name].append(total - sum(spent.get(stage, 0) for stage in _BEFORE))
                inferences.append(spent["infer"])
    return {
        name: {
            "bytes": sizes[name],
            "beyond_inference_ms": round(min(beyond[name]), 1),
            "share": round(min(beyond[name]) / min(inferences), 2),
        }
        for name in queries
    }


def _stages(header: str) -> dict[str, float]:
    """Milliseconds by stage, from ``Server-Timing``."""
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}
