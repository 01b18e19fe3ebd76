"""The 3-D view of the demo page: what a person sets of an image stays with it, and goes to no other."""

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
