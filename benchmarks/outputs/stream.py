"""A stream against one request a frame."""

import statistics
import time
from io import BytesIO
from typing import Final

import httpx
from PIL import Image
from websockets.sync.client import connect

BURST: Final = 60
"""Frames that are sent at once."""
_QUERY: Final = "tasks=depth&size=model&format=npz"


def measure_stream(url: str, image: Image.Image, rounds: int) -> dict[str, float]:
    """Times of a frame and of a request in turn, and what becomes of a burst of frames."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    frame = buffer.getvalue()
    requests, frames = [], []
    with (
        httpx.Client(base_url=url, timeout=120, headers={"Content-Type": "image/jpeg"}) as client,
        connect(f"{url.replace('http', 'ws', 1)}/stream?{_QUERY}", max_size=None) as stream,
    ):
        for _ in range(4 * rounds):
            start = time.perf_counter()
            client.post(f"/predict?{_QUERY}", content=frame).raise_for_status()
            middle = time.perf_counter()
            stream.send(frame)
            stream.recv()
            requests.append(middle - start)
            frames.append(time.perf_counter() - middle)
        start = time.perf_counter()
        for _ in range(BURST):
            stream.send(frame)
        answers, last = 0, start
        while True:
            try:
                stream.recv(timeout=max(5 * statistics.median(frames), 0.5))
            except TimeoutError:
                break
            answers, last = answers + 1, time.perf_counter()
    return {
        "least, over a request": round(min(frames) / min(requests), 3),
        "median, over a request": round(statistics.median(frames) / statistics.median(requests), 3),
        "frames/s": round(1 / statistics.median(frames), 2),
        "requests/s": round(1 / statistics.median(requests), 2),
        "answers of 60 at once": answers,
        "the last, in frames' times": round((last - start) / statistics.median(frames), 2),
    }
