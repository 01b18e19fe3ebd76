"""The demo page and the camera: photos from it, live, and what happens without one."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.mtcp_serve.browser import answered, needs_chromium, problem, visit
from tests.mtcp_serve.process import Server

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(max_bytes=100_000)
    yield server
    server.stop()


def test_the_camera_takes_photos_and_goes_live_one_request_at_a_time(
    server: Server, browser: Browser
) -> None:
    with visit(browser, server.url) as page:
        running, most, done = 0, 0, 0

        def begin(request: Any) -> None:
            nonlocal running, most
            if "/predict?" in request.url:
                running += 1
                most = max(most, running)

        def end(request: Any) -> None:
            nonlocal running, done
            if "/predict?" in request.url:
                running -= 1
                done += 1

        page.on("request", begin)
        page.on("requestfinished", end)
        page.click("#camera-start")
        page.click("#camera-take")
        answered(page)
        assert "640 \N{MULTIPLICATION SIGN} 480 JPEG" in page.locator("#view-maps .about").first.inner_text()
        page.click("#camera-live")
        while done < 4:
            with page.expect_request_finished(lambda request: "/predict?" in request.url):
                pass
        expect(page.locator("#camera-rate")).to_contain_text("photos a second")
        page.click("#camera-stop")
        expect(page.locator("#camera")).to_be_hidden()
        assert page.evaluate("document.getElementById('video').srcObject") is None
        assert most == 1


def test_live_goes_on_at_the_size_that_is_chosen(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.click("#camera-start")
        page.click("#camera-live")
        expect(page.locator("#camera-rate")).to_contain_text("photos a second")
        page.select_option("#size", "input")
        expect(page.locator("#made-size")).to_have_text("640 \N{MULTIPLICATION SIGN} 480")
        with page.expect_request_finished(lambda request: "size=input" in request.url):
            pass
        assert page.get_attribute("#camera-live", "aria-pressed") == "true"


def test_no_camera_is_left_running(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.evaluate(
            """() => {
            const devices = navigator.mediaDevices;
            const open = devices.getUserMedia.bind(devices);
            window.tracks = [];
            devices.getUserMedia = async (wanted) => {
              const stream = await open(wanted);
              window.tracks.push(...stream.getTracks());
              return stream;
            };
        }"""
        )
        # Two clicks at once: the button goes when the camera runs, and a slow second click meets another one.
        page.evaluate("for (let time = 0; time < 2; time++) document.getElementById('camera-start').click()")
        page.click("#camera-live")
        expect(page.locator("#camera-rate")).to_contain_text("photos a second")
        with page.expect_request_finished(lambda request: "/predict?" in request.url):
            with page.expect_request(lambda request: "/predict?" in request.url):
                pass
            page.evaluate("window.tracks[0].dispatchEvent(new Event('ended'))")  # as when it is unplugged
        answered(page)  # the frame that was under way
        assert problem(page).startswith("The camera is gone.")
        assert page.locator("#camera").is_hidden()
        assert page.get_attribute("#camera-live", "aria-pressed") == "false"
        assert page.evaluate("window.tracks.map((track) => track.readyState)") == ["ended"]


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ("{ getUserMedia: async () => { throw new DOMException('', 'NotAllowedError') } }", "was refused"),
        ("{ getUserMedia: async () => { throw new DOMException('', 'NotFoundError') } }", "No camera"),
        ("undefined", "from https"),
    ],
)
def test_a_camera_that_is_not_to_be_had_is_explained(
    server: Server, browser: Browser, devices: str, said: str
) -> None:
    with visit(browser, server.url) as page:
        page.evaluate(f"Object.defineProperty(navigator, 'mediaDevices', {{ value: {devices} }}) && 0")
        page.click("#camera-start")
        assert said in problem(page)
