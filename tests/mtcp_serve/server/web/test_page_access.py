"""The demo page in small windows, with the system's own colours, by keys and by ear."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.mtcp_serve.browser import PHOTO, SMALL, answered, give, look, needs_chromium, visit
from tests.mtcp_serve.process import Server
from tests.mtcp_serve.support import encode

pytestmark = needs_chromium
TALL: dict[str, Any] = {**SMALL, "buffer": encode(Image.open(PHOTO).resize((96, 128)))}
TWO = [SMALL, {**SMALL, "name": "other.png"}]


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    server = Server(bundle)
    yield server
    server.stop()


@pytest.mark.parametrize("size", [(600, 400), (700, 375), (375, 700), (320, 480)])
def test_a_small_window_covers_nothing_of_the_enlarged_picture(
    server: Server, browser: Browser, size: tuple[int, int]
) -> None:
    with visit(browser, server.url, viewport={"width": size[0], "height": size[1]}) as page:
        give(page, TALL)
        page.click("[data-map=depth]")
        page.keyboard.press("ArrowRight")
        parts = [page.locator(f"#enlarged > {part}") for part in ("header", ".frame", ".readout")]
        boxes = [part.bounding_box() for part in parts]
        for above, below in pairwise(boxes):
            assert above is not None
            assert below is not None
            assert below["y"] >= above["y"] + above["height"]
        last = parts[2].locator("dd").last
        last.scroll_into_view_if_needed()
        on_top = """element => {
            const { x, y, width, height } = element.getBoundingClientRect();
            return element.contains(document.elementFromPoint(x + width / 2, y + height / 2));
        }"""
        assert last.evaluate(on_top)


def test_what_keys_find_is_said_where_it_can_be_heard(server: Server, browser: Browser) -> None:
    """While a dialog is open the rest of the page is inert: nothing of it is read out."""
    with visit(browser, server.url) as page:
        give(page, SMALL)
        outside, inside = page.locator("#spoken"), page.locator("#enlarged [aria-live=polite]")
        page.focus("[data-map=depth]")
        page.keyboard.press("ArrowRight")
        expect(outside).to_contain_text("x 65, y 64: ")
        page.keyboard.press("Enter")
        expect(page.locator("#enlarged .frame")).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(inside).to_contain_text("x 66, y 64: ")
        page.keyboard.press("Escape")
        expect(page.locator("[data-map=depth]")).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(outside).to_contain_text("x 67, y 64: ")


def test_keys_of_the_browser_are_left_to_it(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.set_input_files("#file", TWO)  # type: ignore[arg-type]
        expect(page.locator("#roll-count")).to_have_text("2 images")
        answered(page)
        taken = """([selector, ...pressed]) => pressed.map((key) => {
            const options = { key: "ArrowLeft", [key]: true, bubbles: true, cancelable: true };
            const event = new KeyboardEvent("keydown", options);
            const element = document.querySelector(selector);
            element.focus();
            return !element.dispatchEvent(event) || document.activeElement !== element;
        })"""
        for selector in ("#tab-maps", "#roll-items button"):
            keys = [selector, "altKey", "ctrlKey", "metaKey", "shiftKey"]
            assert page.evaluate(taken, keys) == [False, False, False, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_systems_own_colours_leave_what_colours_say(
    server: Server, browser: Browser, scheme: Any
) -> None:
    with visit(browser, server.url, forced_colors="active", color_scheme=scheme) as page:
        page.set_input_files("#file", TWO)  # type: ignore[arg-type]
        expect(page.locator("#roll-count")).to_have_text("2 images")
        page.click("#tab-overlay")
        entries = page.locator(".legend button")
        entries.first.click()
        page.focus("#tab-overlay")
        page.mouse.move(1, 1)
        for swatch in page.locator(".swatch").all()[:3]:
            own = swatch.evaluate("swatch => swatch.style.backgroundColor").removeprefix("rgb(").rstrip(")")
            middle = look(swatch)[8, 8]
            assert middle.tolist() == [int(part) for part in own.split(", ")]
        color = "stage => getComputedStyle(stage).backgroundColor"
        assert len({stage.evaluate(color) for stage in page.locator(".stage").all()}) == 5
        for chosen, other in (
            (entries.first, entries.nth(1)),
            (page.locator("#tab-overlay"), page.locator("#tab-cutout")),
            (page.locator("input[value=blend] + span"), page.locator("input[value=wipe] + span")),
        ):
            ground, plain = (np.median(look(each), axis=(0, 1)) for each in (chosen, other))
            assert np.abs(ground - plain).max() > 40
        first, second = (look(page.locator("#roll-items button").nth(index)) for index in (0, 1))
        rim = np.abs(first - second)[20:-20, 1]  # the pictures are the same
        assert rim.max() > 40
