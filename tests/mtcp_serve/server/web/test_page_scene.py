"""The 3-D view of the demo page: what a person sets of an image stays with it, and goes to no other."""

import re
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.mtcp_serve.browser import SMALL, answered, give, needs_chromium, visit
from tests.mtcp_serve.process import Server

pytestmark = needs_chromium
OTHER = {**SMALL, "name": "other.png"}
WINDOW = {"width": 600, "height": 400}  # software draws less of it faster


def set_angle(page: Page) -> None:
    page.click("#tab-scene")
    page.get_by_label("Field of view").fill("100")
    expect(page.locator("[data-source]")).to_have_text("as you set it")


def model_request(page: Page) -> str:
    """The address that the button for a GLB asks for."""
    with page.expect_response("**/predict?format=glb**") as sent:
        page.get_by_role("button", name="3-D model (GLB)").click()
    assert sent.value.status == 200
    return sent.value.url


def test_a_field_of_view_is_of_the_image_it_was_set_for(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, viewport=WINDOW) as page:
        give(page, SMALL)
        set_angle(page)
        page.click("#tab-maps")
        assert "fov_x=100" in model_request(page)
        give(page, OTHER)
        assert "fov_x" not in model_request(page)
        page.click("#tab-scene")
        expect(page.get_by_label("Field of view")).to_have_value("60")
        assert "fov_x" not in model_request(page)


def test_the_field_of_view_and_the_marks_stay_while_the_image_does(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, viewport=WINDOW) as page:
        give(page, SMALL)
        set_angle(page)
        page.focus("canvas.scene")
        said = page.locator("[data-measure]")
        page.keyboard.press("m")
        expect(said).to_have_text("Click the second point")
        with page.expect_response("**/predict?**confidence=true**"):
            page.get_by_label("How sure?").check()
        answered(page)
        expect(page.get_by_label("Field of view")).to_have_value("100")
        expect(said).to_have_text("Click the second point")
        with page.expect_response("**/predict?**size=model**"):  # another grid
            page.select_option("#size", "model")
        expect(said).to_have_text("Click two points to measure between them")
        expect(page.get_by_label("Field of view")).to_have_value("100")


def test_frames_of_one_feed_are_one_image(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, viewport=WINDOW) as page:
        page.click("#camera-start")
        with page.expect_websocket() as opened:
            page.click("#camera-live")
        expect(page.locator("#camera-rate")).to_contain_text("images per second")
        set_angle(page)
        for _ in range(3):  # the page has shown at least one of them when the last is here
            opened.value.wait_for_event("framereceived", lambda payload: isinstance(payload, bytes))
        expect(page.get_by_label("Field of view")).to_have_value("100")
        assert "fov_x=100" in model_request(page)
        page.click("#camera-live")
        answered(page)
        with page.expect_response("**/predict?**confidence=true**"):
            page.get_by_label("How sure?").check()
        answered(page)
        expect(page.get_by_label("Field of view")).to_have_value("100")


def test_a_distance_that_is_known_corrects_the_others(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, viewport=WINDOW) as page:
        give(page, SMALL)
        page.click("#tab-scene")
        form, state = page.locator("[data-known]"), page.locator("[data-corrected]")
        page.focus("canvas.scene")
        expect(form).to_be_hidden()
        page.keyboard.press("m")
        expect(form).to_contain_text("m from the camera")
        told = re.search(r"is ([\d.]+) m", form.text_content() or "")
        assert told
        away = float(told[1])
        with page.expect_response("**/predict?**distances=**") as sent:
            form.locator("input").fill(f"{2 * away:.2f}")
            page.keyboard.press("Enter")
        assert sent.value.status == 200
        answered(page)
        expect(state).to_contain_text("Corrected by the distance that you gave.")
        expect(form).to_be_hidden()
        x, y, metres = map(float, parse_qs(urlsplit(sent.value.url).query)["distances"][0].split(","))
        width, height = Image.open(BytesIO(SMALL["buffer"])).size
        assert abs(x - width / 2) < width / 4  # of the middle of the view, turned a little
        assert abs(y - height / 2) < height / 4
        assert 1.5 * away < metres <= 2 * away + 0.01  # along the axis: no more than it is away
        page.focus("canvas.scene")
        page.keyboard.press("m")
        expect(form).to_contain_text("m from the camera")
        told = re.search(r"is ([\d.]+) m", form.text_content() or "")
        assert told
        assert 1.7 * away < float(told[1]) < 2.1 * away
        assert "distances=" in model_request(page)
        snippet = page.locator("#snippet-python")
        assert f"distances=[({x:g}, {y:g}, {metres:g})]" in (snippet.text_content() or "")
        with page.expect_response("**/predict?format=cutout**") as cut:
            page.get_by_role("button", name="Cut-out (PNG)").click()
        assert "distances" not in cut.value.url
        page.click("#tab-maps")
        give(page, OTHER)
        assert "distances" not in model_request(page)
        page.click("#tab-scene")
        expect(state).to_be_hidden()


def test_known_distances_add_up_until_they_are_taken_back(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, viewport=WINDOW) as page:
        give(page, SMALL)
        page.click("#tab-scene")
        form, state = page.locator("[data-known]"), page.locator("[data-corrected]")
        for metres in ("5", "6"):
            page.focus("canvas.scene")
            page.keyboard.press("m")
            form.locator("input").fill("0")  # no distance
            form.get_by_role("button").click()
            expect(form).to_be_visible()
            with page.expect_response("**/predict?**distances=**") as sent:
                form.locator("input").fill(metres)
                form.get_by_role("button").click()
            answered(page)
        assert sent.value.url.count("%2C") == 5
        expect(state).to_contain_text("Corrected by the 2 distances that you gave")
        with page.expect_response("**/predict?**") as sent:
            state.get_by_role("button", name="Undo").click()
        answered(page)
        assert "distances" not in sent.value.url
        expect(state).to_be_hidden()
