"""The demo page and the camera: images from it, live over a stream or by requests, and without a camera."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect
from websockets.sync.client import connect

from tests.mtcp_serve.browser import answered, needs_chromium, problem, visit
from tests.mtcp_serve.process import Server

pytestmark = needs_chromium
KEY = "a-key-for-the-tests-0123456789"
NO_STREAM = """
const Real = WebSocket;
window.WebSocket = class extends Real {
  constructor(address, protocols) { super(String(address).replace("/stream?", "/none?"), protocols); }
};
"""
COUNT = """
const Real = WebSocket;
window.most = 0; // frames that are neither answered nor left out
window.WebSocket = class extends Real {
  sent = 0;
  done = 0;
  constructor(address, protocols) {
    super(address, protocols);
    this.addEventListener("message", ({ data }) => {
      if (typeof data === "string") this.done = JSON.parse(data).frame + 1;
    });
  }
  send(frame) {
    window.most = Math.max(window.most, ++this.sent - this.done);
    super.send(frame);
  }
};
"""
CUT = """
const Real = WebSocket;
window.sockets = [];
window.WebSocket = class extends Real {
  constructor(address, protocols) {
    super(address, protocols);
    window.sockets.push(this);
    if (window.cut) this.addEventListener("open", () => this.close(4000));
  }
};
"""


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    server = Server(bundle, max_concurrent_uploads=2)
    yield server
    server.stop()


def live(page: Page) -> WebSocket:
    """Go live, and wait for the stream."""
    with page.expect_websocket() as opened:
        page.click("#camera-live")
    return opened.value


def answers(stream: WebSocket, count: int) -> None:
    """Wait for ``count`` more answers."""
    for _ in range(count):
        stream.wait_for_event("framereceived", lambda payload: isinstance(payload, bytes))


def test_the_camera_takes_images_and_goes_live_over_one_stream(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.add_init_script(COUNT)
        page.reload()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.click("#camera-start")
        page.click("#camera-take")
        answered(page)
        assert "640 \N{MULTIPLICATION SIGN} 480 JPEG" in page.locator("#view-maps .about").first.inner_text()
        requests.clear()
        stream = live(page)
        answers(stream, 6)
        expect(page.locator("#camera-rate")).to_contain_text("images per second")
        page.click("#camera-stop")
        expect(page.locator("#camera")).to_be_hidden()
        assert page.evaluate("document.getElementById('video').srcObject") is None
        if not stream.is_closed():
            stream.wait_for_event("close")
        assert 1 <= page.evaluate("window.most") <= 2
        assert not [url for url in requests if "/predict" in url]
        answered(page)


def test_a_server_without_streams_is_asked_one_request_at_a_time(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, allow=("WebSocket connection",)) as page:
        page.add_init_script(NO_STREAM)
        page.reload()
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
        page.click("#camera-live")
        while done < 4:
            with page.expect_request_finished(lambda request: "/predict?" in request.url):
                pass
        expect(page.locator("#camera-rate")).to_contain_text("images per second")
        page.click("#camera-stop")
        assert most == 1


def test_live_goes_on_at_the_size_that_is_chosen(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.click("#camera-start")
        first = live(page)
        expect(page.locator("#camera-rate")).to_contain_text("images per second")
        with page.expect_websocket() as opened:
            page.select_option("#size", "input")
        assert "size=input" in opened.value.url
        expect(page.locator("#made-size")).to_have_text("640 \N{MULTIPLICATION SIGN} 480")
        if not first.is_closed():
            first.wait_for_event("close")
        answers(opened.value, 2)
        assert page.get_attribute("#camera-live", "aria-pressed") == "true"


def test_the_stream_gets_the_key_and_the_address_does_not(
    bundle: Path, browser: Browser, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"page: {KEY}\n")
    server = Server(bundle, api_keys_file=keys)
    try:
        with visit(browser, server.url, allow=("401 ",), ready="#key[open]") as page:
            page.get_by_role("button", name="Cancel").click()
            page.click("#camera-start")
            page.click("#camera-live")  # asks for the key first: a stream that is refused says nothing
            page.get_by_label("API key", exact=True).fill(KEY)
            with page.expect_websocket() as opened:
                page.get_by_role("button", name="Continue").click()
            answers(opened.value, 2)
            assert KEY not in opened.value.url
            expect(page.locator("#camera-rate")).to_contain_text("images per second")
    finally:
        server.stop()


def test_a_stream_that_is_lost_is_opened_once_more(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.add_init_script(CUT)
        page.reload()
        page.click("#camera-start")
        answers(live(page), 2)
        with page.expect_websocket() as opened:
            page.evaluate("window.sockets.at(-1).close(4000)")
        answers(opened.value, 2)
        assert page.get_attribute("#camera-live", "aria-pressed") == "true"
        expect(page.get_by_role("alert")).to_be_hidden()
        page.evaluate("window.cut = true; window.sockets.at(-1).close(4000)")
        assert problem(page).startswith("The connection to the server was lost. See whether")
        assert page.get_attribute("#camera-live", "aria-pressed") == "false"
        assert page.evaluate("window.sockets.length") == 3
        answered(page)


def test_too_many_streams_are_said_to_be(server: Server, browser: Browser) -> None:
    address = f"{server.url.replace('http', 'ws')}/stream"
    with visit(browser, server.url) as page, connect(address), connect(address):
        page.click("#camera-start")
        page.click("#camera-live")
        assert "2 streams are open" in problem(page)
        assert page.get_attribute("#camera-live", "aria-pressed") == "false"


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
        stream = live(page)
        expect(page.locator("#camera-rate")).to_contain_text("images per second")
        page.evaluate("window.tracks[0].dispatchEvent(new Event('ended'))")  # as when it is unplugged
        if not stream.is_closed():
            stream.wait_for_event("close")
        answered(page)
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
