"""The switch "How sure?": the page draws and says what the answer does, and has it where a model does."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from mtcp_serve.bundle.manifest import Manifest
from tests.mtcp_serve.browser import PHONE, answered, give, needs_chromium, pixels, point, values, visit
from tests.mtcp_serve.confident import OWN_WORDS, make_confident_bundle
from tests.mtcp_serve.process import Server
from tests.mtcp_serve.support import GOOD, make_bundle

pytestmark = needs_chromium
IMAGE: dict[str, Any] = {"name": "noise.png", "mimeType": "image/png", "buffer": GOOD}
DEPTH = "[data-map=depth]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(make_confident_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))
    yield server
    server.stop()


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Page]:
    with visit(browser, server.url) as page:
        give(page, IMAGE)
        yield page


@pytest.fixture(scope="module")
def arrays(server: Server) -> Any:
    """What the page is sent once the switch is on, asked for without it."""
    body = server.predict(GOOD, "format=npz&visualize=true&confidence=true").content
    return dict(np.load(io.BytesIO(body)))


def switch_on(page: Page) -> str:
    """Turn it on; the address of the request that it takes."""
    with page.expect_response(lambda response: "/predict?" in response.url) as sent:
        page.get_by_label("How sure?").check()
    answered(page)
    return sent.value.url


def test_it_is_asked_for_only_when_it_is_wanted(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    give(page, IMAGE)
    assert "confidence=true" in switch_on(page)
    assert [("confidence" in url) for url in asked] == [False, True]
    page.get_by_label("How sure?").uncheck()  # it is drawn from what is here
    page.get_by_label("How sure?").check()
    expect(page.locator("#view-maps .sure").nth(2)).to_contain_text(OWN_WORDS)
    assert len(asked) == 2


def test_colours_fade_to_grey_and_are_striped_below_one_half(page: Page, arrays: Any) -> None:
    canvas = page.locator(f"{DEPTH} canvas")
    plain = pixels(canvas)
    switch_on(page)
    expect(page.locator("#view-maps .sure").nth(2)).not_to_be_empty()
    drawn, sent, sure = pixels(canvas)[..., :3], arrays["depth.visualization"], arrays["depth_confidence"]
    assert np.array_equal(plain[..., :3], sent)
    doubtful, share = sure < 0.5, sure.astype(np.float64)[..., None]
    grey, dark, bright = (
        np.abs(drawn - (grey + share * (sent - float(grey)))) <= 1 for grey in (128, 64, 192)
    )
    assert grey[~doubtful].all()
    dark, bright = dark.all(-1)[doubtful], bright.all(-1)[doubtful]
    assert (dark | bright).all()
    assert 0.4 < dark.mean() < 0.6  # as wide as each other
    assert np.array_equal(
        pixels(page.locator("[data-map=normals] canvas"))[..., :3], arrays["normals.visualization"]
    )
    page.get_by_label("How sure?").uncheck()
    assert np.array_equal(pixels(canvas), plain)


def test_the_probe_and_the_captions_say_it(page: Page, arrays: Any) -> None:
    switch_on(page)
    about = json.loads(arrays["metadata"].item())["maps"]
    caption = page.locator("#view-maps figure", has=page.locator(DEPTH)).locator(".sure")
    mean = round(100 * about["depth"]["confidence"]["mean"])
    assert caption.inner_text() == f"On average {mean}\N{NO-BREAK SPACE}% sure that {OWN_WORDS}."
    other = page.locator("#view-maps figure", has=page.locator("[data-map=normals]")).locator(".sure")
    assert other.inner_text() == "The model does not say how sure it is."
    point(page.locator(DEPTH), 0.3, 0.6)
    found = values(page)
    x, y = map(int, found["image"].split(", "))
    for name in ("depth", "semseg"):
        wanted = f"{round(100 * float(arrays[f'{name}_confidence'][y, x]))}\N{NO-BREAK SPACE}% sure"
        assert found[name].endswith(f", {wanted}")
    assert "sure" not in found["normals"]
    page.click("#tab-overlay")
    readout = page.locator("#view-overlay .readout")
    point(page.locator("#view-overlay .frame"), 0.3, 0.6)
    expect(readout.locator("[data-sure=depth]")).to_contain_text("% sure")
    expect(readout.locator("[data-sure=normals]")).to_be_hidden()
    page.get_by_label("How sure?").uncheck()
    expect(readout.locator("[data-sure=depth]")).to_be_hidden()


def test_over_the_image_what_is_unsure_has_a_veil(page: Page, arrays: Any) -> None:
    page.click("#tab-overlay")
    page.locator("#view-overlay label", has_text="parsing").click()  # of which nothing is known
    layer = page.locator("#view-overlay canvas").nth(1)
    before = pixels(layer)
    switch_on(page)
    assert np.array_equal(pixels(layer), before)
    page.locator("#view-overlay label", has_text="depth").click()
    shown = pixels(layer)
    page.get_by_label("How sure?").uncheck()
    changed = np.abs(shown - pixels(layer)).max(-1)
    assert (changed[arrays["depth_confidence"] < 0.9] > 0).mean() > 0.9
    assert changed[arrays["depth_confidence"] == 1].max() == 0
    clear = page.evaluate(
        """async () => {
        const { fade } = await import("/web/sureness.js");
        return [false, true].map((veil) => {
          const data = new Uint8ClampedArray([0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0]);
          fade(data, [0.75, 0.75, 1], 3, veil);
          return [...data];
        });
    }"""
    )
    assert clear == [
        [32, 32, 32, 0, 32, 32, 32, 255, 0, 0, 0, 0],
        [32, 32, 32, 50, 32, 32, 32, 255, 0, 0, 0, 0],
    ]


def test_downloads_and_programs_have_it_too(page: Page) -> None:
    expect(page.locator("#snippet-curl")).not_to_contain_text("confidence")
    switch_on(page)
    expect(page.locator("#snippet-curl")).to_contain_text("format=npz&refine=true&confidence=true")
    expect(page.locator("#snippet-python")).to_contain_text(
        'predict("noise.png", refine=True, confidence=True)'
    )
    for name, wanted in (("zip", True), ("ply", True), ("cutout", False)):
        with page.expect_response(lambda response: "/predict?" in response.url) as sent:
            page.click(f"[data-file={name}]")
        assert sent.value.status == 200
        assert ("confidence=true" in sent.value.url) is wanted
        expect(page.locator("#status")).to_contain_text("is ready")


def test_keys_reach_it_and_axe_finds_no_fault(page: Page) -> None:
    page.locator("#tab-maps").focus()
    page.keyboard.press("Tab")
    box = page.get_by_label("How sure?")
    expect(box).to_be_focused()
    with page.expect_response(lambda response: "confidence=true" in response.url):
        page.keyboard.press("Space")
    answered(page)
    expect(box).to_be_checked()
    expect(page.locator("#sureness-about")).to_be_visible()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    page.click("#tab-cutout")
    expect(box).to_be_hidden()


def test_on_a_phone_nothing_overflows(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, **PHONE) as page:
        give(page, IMAGE)
        switch_on(page)
        for tab in ("maps", "overlay", "scene"):
            page.click(f"#tab-{tab}")
            expect(page.get_by_label("How sure?")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]


def test_it_is_there_only_where_a_model_says_so(browser: Browser, tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "plain")
    Manifest.load(plain).model_copy(update={"name": "plain"}).save(plain)
    with_both = Server(make_confident_bundle(tmp_path / "confident"), plain)
    try:
        with visit(browser, with_both.url) as page:
            give(page, IMAGE)
            box = page.get_by_label("How sure?")
            switch_on(page)
            with page.expect_response(lambda response: "model=plain" in response.url) as sent:
                page.select_option("#model", "plain")
            answered(page)
            assert "confidence" not in sent.value.url  # it would be refused
            expect(box).to_be_hidden()
            expect(page.locator("#view-maps .sure").nth(2)).to_be_empty()
            with page.expect_response(lambda response: "model=tiny" in response.url) as sent:
                page.select_option("#model", "tiny")
            answered(page)
            assert "confidence=true" in sent.value.url
            expect(box).to_be_checked()
    finally:
        with_both.stop()


def test_an_image_whose_kept_maps_do_not_say_it_is_asked_for_again(server: Server, browser: Browser) -> None:
    files = [{**IMAGE, "name": f"{index}.png"} for index in range(4)]
    with visit(browser, server.url) as page:
        page.set_input_files("#file", files)  # type: ignore[arg-type]
        done = page.locator("#roll-count")
        expect(done).to_have_text("4 images")
        page.get_by_label("How sure?").check()  # all of them once more
        expect(done).to_have_text("4 images")
        page.get_by_label("How sure?").uncheck()
        items = page.locator("#roll-items button")
        items.nth(3).click()
        with page.expect_response("**/predict?**"):
            items.nth(0).click()  # no longer kept, and not asked for it now
        answered(page)
        items.nth(3).click()  # kept, with how sure it is
        page.get_by_label("How sure?").check()
        sure = page.locator("#view-maps figure", has=page.locator(DEPTH)).locator(".sure")
        expect(sure).to_contain_text(OWN_WORDS)
        with page.expect_response("**/predict?**confidence=true**"):
            items.nth(0).click()
        answered(page)
        expect(sure).to_contain_text(OWN_WORDS)
