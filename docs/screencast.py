"""A screencast of the demo page: ``python -m docs.screencast``, in a real browser, with the shipped model.

It needs Chromium on the PATH and the extra ``test``. The images are the page's own examples.
"""

import argparse
import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page, expect

from tests.mtcp_serve.browser import chromium
from tests.mtcp_serve.process import Server

SIZE = (1440, 1000)
SHOWN = (1080, 750)
STILL_MS, STEP_MS = 1400, 70
ARROW = ((0, 0), (0, 25), (6, 19), (10, 29), (14, 27), (10, 18), (18, 18))
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
EXAMPLES = ("example.jpg", "chelsea.jpg", "coffee.jpg")


class Screencast:
    """Frames of a page, with an arrow where the mouse is."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []
        self.mouse = (SIZE[0] * 0.7, SIZE[1] * 0.8)

    def take(self, duration: int = STEP_MS) -> None:
        """One frame of the page as it is now."""
        self.page.evaluate(DRAWN)
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        arrow = [(self.mouse[0] + x, self.mouse[1] + y) for x, y in ARROW]
        ImageDraw.Draw(frame).polygon(arrow, fill="black", outline="white", width=1)
        self.frames.append(frame.resize(SHOWN, Image.Resampling.LANCZOS))
        self.durations.append(duration)

    def move(self, x: float, y: float, steps: int) -> None:
        """Move the mouse to (x, y), a frame a step."""
        first = self.mouse
        for step in range(1, steps + 1):
            share = step / steps
            self.mouse = (first[0] + share * (x - first[0]), first[1] + share * (y - first[1]))
            self.page.mouse.move(*self.mouse)
            self.take()

    def move_to(self, element: Locator, u: float = 0.5, v: float = 0.5, steps: int = 6) -> None:
        """Move the mouse to a place in ``element``, from 0 to 1."""
        box = element.bounding_box()
        assert box is not None, element
        self.move(box["x"] + u * box["width"], box["y"] + v * box["height"], steps)

    def click(self, element: Locator) -> None:
        """Go to ``element`` and click it."""
        self.move_to(element)
        self.page.mouse.down()
        self.page.mouse.up()

    def save(self, path: Path) -> None:
        """Write the screencast, which begins again when it has ended."""
        first, *others = self.frames
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=self.durations,
            loop=0,
            quality=72,
            method=6,
            minimize_size=True,
        )


@contextmanager
def server() -> Iterator[str]:
    """The address of a server with the shipped model."""
    running = Server()
    try:
        yield running.url
    finally:
        running.stop()


def play(cast: Screencast, images: list[Path]) -> None:
    """What the screencast shows."""
    page = cast.page
    tab = page.get_by_role("tab")
    cast.take(STILL_MS)
    cast.click(page.get_by_role("button", name="An astronaut"))
    expect(page.get_by_role("status")).to_contain_text("5 maps of example.jpg in ")
    cast.take(STILL_MS)
    image = page.locator("[data-map=image]")
    cast.move_to(image, 0.4, 0.25)
    cast.take(STILL_MS)
    cast.move_to(image, 0.75, 0.3, steps=8)
    cast.take(STILL_MS)
    cast.click(tab.filter(has_text="Overlay"))
    page.locator("#view-overlay").wait_for()
    cast.take(STILL_MS // 2)
    cast.click(page.locator("#view-overlay label", has_text="Distance"))
    cast.click(page.locator("#view-overlay label", has_text="Wipe"))
    frame = page.locator("#view-overlay .frame")
    cast.move_to(frame, 0.5, 0.4)
    page.mouse.down()
    cast.move_to(frame, 0.15, 0.4, steps=8)
    cast.move_to(frame, 0.8, 0.4, steps=14)
    page.mouse.up()
    cast.take(STILL_MS // 2)
    cast.click(tab.filter(has_text="Cut-out"))
    expect(page.get_by_role("button", name="Download PNG")).to_be_enabled()
    cast.take(STILL_MS)
    cast.click(tab.filter(has_text="3-D"))
    scene = page.locator("canvas.scene")
    scene.wait_for()
    cast.move_to(scene, 0.5, 0.45)
    page.mouse.down()
    cast.move_to(scene, 0.42, 0.5, steps=10)
    cast.move_to(scene, 0.58, 0.42, steps=18)
    cast.move_to(scene, 0.5, 0.45, steps=9)
    page.mouse.up()
    cast.take(STILL_MS // 2)
    cast.click(tab.filter(has_text="Maps"))
    page.set_input_files("#file", images)
    expect(page.get_by_role("status")).to_have_text(f"{len(images)} images are done.")
    cast.take(STILL_MS)
    cast.click(page.locator("#roll-items button").last)
    expect(page.locator("#roll-items button").last).to_have_attribute("aria-current", "true")
    with page.expect_response("**/web/colormaps.json"):
        page.get_by_label("Colours of depth").select_option("turbo")
    cast.take(2 * STILL_MS)


def main() -> None:
    """Record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_name("page.webp"))
    arguments = parser.parse_args()
    folder = files("mtcp_serve.server").joinpath("web")
    viewport = {"width": SIZE[0], "height": SIZE[1]}
    with server() as url, chromium() as browser, as_file(folder) as images:
        page = browser.new_page(viewport=viewport, reduced_motion="reduce")  # type: ignore[arg-type]
        page.goto(url)
        page.wait_for_selector("#tasks li")
        cast = Screencast(page)
        play(cast, [Path(images) / name for name in EXAMPLES])
    cast.save(arguments.out)
    seconds = sum(cast.durations) / 1000
    size = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {len(cast.frames)} frames, {seconds:.0f} s, {size:.1f} MB")


if __name__ == "__main__":
    main()
