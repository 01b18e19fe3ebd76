"""A headless Chromium for the demo page: software graphics, a fake camera, and nobody to call home to."""

import base64
import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.mtcp_serve.support import encode

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt install chromium)")
PHOTO = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
SMALL: dict[str, Any] = {
    "name": "small.png",
    "mimeType": "image/png",
    "buffer": encode(Image.open(PHOTO).resize((128, 128))),
}
"""The image where its size does not matter; software draws its 3-D view faster."""
TASKS = ["semseg", "depth", "normals", "saliency", "parsing"]
TITLES = ["Objects", "Distance", "Surface directions", "Subject", "Clothes and skin"]
DESKTOP = {"width": 1000, "height": 650}
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
PATIENCE_MS = 60_000  # a busy machine is no fault
expect.set_options(timeout=PATIENCE_MS)  # else 5 s, whatever a context says
_ARGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--use-angle=swiftshader",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--use-gl=angle",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the one on the PATH, not one that playwright would download."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@contextmanager
def visit(
    browser: Browser, url: str, allow: tuple[str, ...] = (), ready: str = "#tasks li", **options: Any
) -> Iterator[Page]:
    """The page at ``url`` + ``/``, in a context of its own with ``options``, when ``ready`` is there.

    At the end no script has failed, the console has no error except those that hold a text of ``allow``, and
    nothing was asked of any other origin.
    """
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    addresses: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(f"{url}/")
    page.wait_for_selector(ready, state="attached")
    yield page
    context.close()
    unexpected = [fault for fault in faults if not any(text in fault for text in allow)]
    assert not unexpected, unexpected
    assert addresses
    elsewhere = [each for each in addresses if not each.startswith((f"{url}/", f"blob:{url}/"))]
    assert not elsewhere, elsewhere


def answered(page: Page) -> None:
    """Wait until the image that was given has been answered and is shown."""
    page.wait_for_selector("#results[aria-busy=false]")
    page.wait_for_selector("#view-maps figure:first-child canvas", state="attached")


def until(page: Page, holds: Callable[[], Any]) -> None:
    """Wait until ``holds()``, asked from out here.

    Playwright's own ``wait_for_function`` evaluates its text in the page whenever it looks again, which the
    page's Content-Security-Policy forbids: it works only where the condition holds at the first look.
    """
    end = time.monotonic() + PATIENCE_MS / 1000
    while not holds():
        assert time.monotonic() < end, "the page never came to it"
        page.wait_for_timeout(20)


def give(page: Page, photo: str | Path | dict[str, Any] = PHOTO) -> None:
    """Choose ``photo`` (a path, or name, mimeType and buffer) and wait for the answer."""
    with page.expect_response(lambda response: "/predict?" in response.url):
        page.set_input_files("#file", photo)  # type: ignore[arg-type]
    answered(page)


def hold(page: Page, address: str, first: int = 1) -> list[Route]:
    """The ``first`` requests for ``address`` wait in this list, until the test lets them go."""
    held: list[Route] = []

    def handle(route: Route) -> None:
        if len(held) < first:
            held.append(route)
        else:
            route.continue_()

    page.route(address, handle)
    return held


def look(element: Locator) -> NDArray[np.int16]:
    """What a person sees of ``element``, when what was asked before is drawn: RGB ``[height, width, 3]``."""
    frames = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
    element.page.evaluate(frames)  # the page draws in the first
    picture = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    return np.asarray(picture).astype(np.int16)


def pixels(canvas: Locator) -> NDArray[np.int16]:
    """What a canvas holds, RGBA ``[height, width, 4]``; as a PNG, which passes faster than numbers."""
    address = canvas.evaluate("canvas => canvas.toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA")
    return np.asarray(picture).astype(np.int16)


def values(page: Page) -> dict[str, str]:
    """What the captions of the pictures say at the probe, by map; that of the image is the pixel."""
    found: dict[str, str] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#view-maps figure")].map(
            (tile) => [tile.querySelector(".frame").dataset.map,
                       tile.querySelector(".value").textContent]))"""
    )
    return found


def point(frame: Locator, u: float, v: float) -> None:
    """Hold the mouse over ``frame`` at ``u`` of its width and ``v`` of its height, and wait for the mark."""
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    frame.page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"])
    there = """(cross, [u, v, width, height]) => !cross.hidden
        && Math.abs(parseFloat(cross.style.left) / 100 - u) <= 2 / width
        && Math.abs(parseFloat(cross.style.top) / 100 - v) <= 2 / height"""
    cross, place = frame.locator(".cross"), [u, v, box["width"], box["height"]]
    until(frame.page, lambda: cross.evaluate(there, place))


def expected(arrays: Any, metadata: Any, x: int, y: int) -> dict[str, str]:
    """What the page has to say at pixel (x, y) of the maps in an npz answer."""
    found = {"image": f"{x}, {y}"}
    for name, info in metadata["maps"].items():
        value = arrays[name][y, x]
        match info["kind"]:
            case "labels":
                found[name] = next(label["name"] for label in info["labels"] if label["id"] == value)
            case "depth":
                found[name] = f"{value:.2f} m"
            case "normals":
                found[name] = " ".join(_signed(part) for part in value)
            case "probability":
                found[name] = f"{100 * float(value):.1f} %"
    return found


def _signed(value: float) -> str:
    text = f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
    return "+0.00" if text == "\N{MINUS SIGN}0.00" else text


def problem(page: Page) -> str:
    """What the alert says, once it is there."""
    alert = page.get_by_role("alert")
    alert.wait_for()
    return alert.locator("p").inner_text()
