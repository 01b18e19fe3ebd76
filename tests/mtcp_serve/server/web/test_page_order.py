"""The demo page when things come in another order than they were asked for: the last wish counts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.mtcp_serve.browser import SMALL, answered, give, hold, needs_chromium, problem, until, visit
from tests.mtcp_serve.process import Server

pytestmark = needs_chromium
KEY = "a-key-for-the-tests-0123456789"
OTHER = {**SMALL, "name": "other.png"}


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    server = Server(bundle)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def locked(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"page: {KEY}\n")
    server = Server(bundle, api_keys_file=keys)
    yield server
    server.stop()


def settle(page: Page) -> None:
    """Wait until the page has done what it does when a file has come."""
    page.evaluate(
        """async () => {
        await (await fetch("web/icon.svg")).blob();
        for (let turn = 0; turn < 10; turn++) await new Promise((done) => setTimeout(done, 0));
    }"""
    )


def test_an_example_that_comes_late_does_not_replace_the_image(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        held = hold(page, "**/web/example.jpg")
        with page.expect_request("**/web/example.jpg"):
            page.click("#example")
        give(page, SMALL)
        [example] = held
        with page.expect_request_finished(lambda request: "example.jpg" in request.url):
            example.continue_()
        settle(page)
        answered(page)
        expect(page.get_by_role("status")).to_contain_text("5 maps of small.png in ")


def test_the_second_click_of_a_double_click_asks_for_no_example(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
        page.dblclick("#example")
        expect(page.get_by_role("status")).to_contain_text("5 maps of example.jpg in ")
        assert asked.count("example.jpg") == 1
        # The camera's button goes, and the example's comes to where it was.
        corner = "button => { const box = button.getBoundingClientRect(); return [box.x + 9, box.y + 9] }"
        place = page.locator("#camera-start").evaluate(corner)
        page.click("#camera-start")
        expect(page.locator("#camera")).to_be_visible()
        page.mouse.move(*place)
        page.mouse.down(click_count=2)
        page.mouse.up(click_count=2)
        settle(page)
        assert asked.count("example.jpg") == 1


def test_an_image_that_is_read_late_says_nothing_any_more(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.evaluate(
            """() => {
            const read = window.createImageBitmap;
            window.createImageBitmap = (blob) => {
              window.createImageBitmap = read;
              return new Promise((done) => { window.release = () => done(read(blob)); });
            };
        }"""
        )
        page.set_input_files("#file", SMALL)  # type: ignore[arg-type]
        until(page, lambda: page.evaluate("window.release !== undefined"))
        give(page, OTHER)
        page.evaluate("window.release()")
        settle(page)
        assert page.get_by_role("status").inner_text().startswith("5 maps of other.png in ")


@pytest.mark.parametrize("shown", [True, False])
def test_a_size_that_is_chosen_is_of_the_image_under_way(
    server: Server, browser: Browser, shown: bool
) -> None:
    with visit(browser, server.url) as page:
        if shown:
            give(page, SMALL)
        hold(page, "**/predict?**")
        with page.expect_request("**/predict?**"):
            page.set_input_files("#file", OTHER)  # type: ignore[arg-type]
        page.select_option("#size", "model")
        expect(page.get_by_role("status")).to_contain_text("5 maps of other.png in ")
        expect(page.locator("#made-size")).to_have_text("32 \N{MULTIPLICATION SIGN} 24")


def test_an_image_during_the_question_for_the_key_leaves_it_so(locked: Server, browser: Browser) -> None:
    with visit(browser, locked.url, allow=("401 ",), ready="#key[open]") as page:
        field = page.get_by_label("API key", exact=True)
        field.fill(KEY)
        with page.expect_request_finished(lambda request: "/predict?" in request.url):
            page.set_input_files("#file", SMALL)  # type: ignore[arg-type]
        settle(page)
        expect(field).to_have_value(KEY)
        page.get_by_role("button", name="Continue").click()
        answered(page)
        expect(page.locator("#tasks li")).to_have_count(5)


def test_a_refusal_from_before_the_key_does_not_blame_it(locked: Server, browser: Browser) -> None:
    with visit(browser, locked.url, allow=("401 ",), ready="#key[open]") as page:
        held = hold(page, "**/predict?**")
        with page.expect_request("**/predict?**"):
            page.set_input_files("#file", SMALL)  # type: ignore[arg-type]
        page.get_by_label("API key", exact=True).fill(KEY)
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#tasks li")).to_have_count(5)
        [route] = held
        route.continue_()
        answered(page)
        assert not page.locator("#key").is_visible()


def test_a_list_of_models_that_comes_late_changes_nothing(server: Server, browser: Browser) -> None:
    error = {"code": "not_ready", "message": "the model is being loaded", "hint": "wait"}
    found = server.client.get("/models").json()
    found["models"].append({**found["models"][0], "name": "second"})
    refusals = [503]

    def models(route: Route) -> None:
        if refusals:
            route.fulfill(status=refusals.pop(), headers={"Retry-After": "30"}, json={"error": error})
        else:
            route.fulfill(json=found)

    with visit(browser, server.url, allow=("503 ", "404 ")) as page:
        page.route("**/models", models)
        page.clock.install()
        page.reload()
        status = page.get_by_role("status")
        expect(status).to_contain_text("Trying again in 30 s")
        give(page, SMALL)
        expect(page.locator("#model option")).to_have_count(3)
        page.evaluate("document.getElementById('model').value = 'second'")
        with page.expect_response("**/models"):
            page.clock.fast_forward(30_000)
        settle(page)
        assert status.inner_text().startswith("5 maps of small.png in ")
        assert page.locator("#model").input_value() == "second"


def test_a_camera_that_does_not_play_is_let_go(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.evaluate(
            """() => {
            document.getElementById("video").play = function () {
              window.stream = this.srcObject;
              return Promise.reject(new DOMException("no picture", "NotSupportedError"));
            };
        }"""
        )
        page.click("#camera-start")
        assert problem(page) == "The camera cannot be used: no picture"
        assert page.evaluate("window.stream.getTracks().map((track) => track.readyState)") == ["ended"]
