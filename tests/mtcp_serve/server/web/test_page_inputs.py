"""The demo page in a real browser: ways in, what is said when something is wrong, keys, keyboard."""

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import LabelsTask, Manifest
from mtcp_serve.server.security.headers import content_policy
from tests.mtcp_serve.browser import (
    PATIENCE_MS,
    PHOTO,
    SMALL,
    TITLES,
    answered,
    expected,
    give,
    needs_chromium,
    point,
    problem,
    until,
    values,
    visit,
)
from tests.mtcp_serve.process import Server
from tests.mtcp_serve.support import encode, make_bundle, noise

pytestmark = needs_chromium
KEY = "a-key-for-the-tests-0123456789"
FLAT = """
<ir_version: 10, opset_import: ["": 18]>
flat (uint8[batch, 24, 32, 3] image) => (uint8[batch, 24, 32] parity)
<int64[1] last = {3}, uint8 two = {2}> {
    most = ReduceMax <keepdims = 0> (image, last)
    parity = Mod (most, two)
}
"""
LONG = "odd_" * 16  # has no place to break
PARITY = LabelsTask(name="parity", dataset="parity", labels=("even", LONG), palette=("#123456", "#abcdef"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(max_bytes=100_000)
    yield server
    server.stop()


def transfer(page: Page, type: str, files: dict[str, bytes]) -> None:
    """Drop ``files`` on the page, or paste them (``type``)."""
    page.evaluate(
        """([type, files]) => {
        const data = new DataTransfer();
        for (const [name, content] of Object.entries(files)) {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          data.items.add(new File([bytes], name, { type: "image/jpeg" }));
        }
        const options = { bubbles: true, cancelable: true };
        document.querySelector("main").dispatchEvent(type === "drop"
            ? new DragEvent(type, { ...options, dataTransfer: data })
            : new ClipboardEvent(type, { ...options, clipboardData: data }));
    }""",
        [type, {name: base64.b64encode(data).decode() for name, data in files.items()}],
    )


@contextmanager
def cut_answers() -> Iterator[str]:
    """The address of a server that ends each connection within the body of its answer.

    A thread a connection: a browser may open one more than it uses.
    """

    class Cut(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"PK\x03\x04")
            self.close_connection = True

        def log_message(self, format: str, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Cut) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_policy_of_the_page_is_strict(server: Server) -> None:
    policy = server.client.get("/").headers["content-security-policy"]
    assert policy == content_policy("/")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_images_come_in_by_drop_paste_and_example(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        status = page.get_by_role("status")
        for way in ("drop", "paste"):
            transfer(page, way, {f"{way}.jpg": PHOTO.read_bytes()})
            expect(status).to_contain_text(f"5 maps of {way}.jpg in ")
            assert page.locator("#view-maps .name").all_inner_texts() == ["Image", *TITLES]
        page.click("#example")
        expect(status).to_contain_text("5 maps of example.jpg in ")
        transfer(page, "drop", {name: PHOTO.read_bytes() for name in ("a.jpg", "b.jpg")})
        expect(status).to_have_text("2 images are done.")
    with visit(browser, server.url) as page:
        page.get_by_role("button", name="A cat").click()
        expect(page.get_by_role("status")).to_contain_text("5 maps of chelsea.jpg in ")


def test_what_cannot_be_answered_is_said_and_the_next_image_is_good(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, allow=("400 (Bad Request)", "413 ")) as page:
        page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
        refusal = server.predict(b"hello").json()["error"]
        said = (f"{text[0].upper()}{text[1:]}." for text in (refusal["message"], refusal["hint"]))
        assert problem(page) == " ".join(said)
        big = encode(noise(240, 240))
        page.set_input_files("#file", {"name": "big.png", "mimeType": "image/png", "buffer": big})
        refusal = server.predict(big).json()["error"]
        assert refusal["code"] == "payload_too_large"
        assert refusal["hint"]
        alert = page.get_by_role("alert").locator("p")
        expect(alert).to_have_text(re.compile(r"^The .* has 0\.\d MB, the limit is .*\. Send less\.$"))
        page.click("#problem-close")
        expect(page.get_by_role("alert")).to_be_hidden()
        give(page)
        expect(page.get_by_role("alert")).to_be_hidden()


def test_a_large_turned_image_is_shown_as_the_model_gives_it(server: Server, browser: Browser) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    photo = encode(Image.open(PHOTO).resize((1400, 900)), "JPEG", quality=60, exif=exif)
    arrays = np.load(io.BytesIO(server.predict(photo, "format=npz&size=model").content))
    metadata = json.loads(arrays["metadata"].item())
    made = Manifest.load(DEFAULT_BUNDLE).input
    with visit(browser, server.url) as page:
        give(page, {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": photo})
        assert (
            "900 \N{MULTIPLICATION SIGN} 1400 JPEG, turned"
            in page.locator("#view-maps .about").first.inner_text()
        )
        frame = page.locator("[data-map=image]")
        box = frame.bounding_box()
        assert box is not None
        assert box["height"] / box["width"] == pytest.approx(14 / 9, rel=0.01)
        expect(page.locator("#made-size")).to_have_text(f"{made.width} \N{MULTIPLICATION SIGN} {made.height}")
        point(frame, 0.4, 0.6)
        found = values(page)
        x, y = map(int, found["image"].split(", "))
        want = expected(arrays, metadata, x * made.width // 900, y * made.height // 1400)
        assert found == {**want, "image": found["image"]}
        with page.expect_response(lambda response: "size=input" in response.url):
            page.select_option("#size", "input")
        answered(page)
        expect(page.locator("#made-size")).to_have_text("900 \N{MULTIPLICATION SIGN} 1400")


def test_an_image_that_the_browser_cannot_show_still_gets_its_maps(server: Server, browser: Browser) -> None:
    tiff = encode(Image.open(PHOTO).resize((160, 120)), "TIFF")
    with visit(browser, server.url) as page:
        give(page, SMALL)
        page.click("[data-map=depth]")
        page.keyboard.press("Escape")
        give(page, {"name": "scan.tiff", "mimeType": "image/tiff", "buffer": tiff})
        assert "cannot show" in page.locator(".frame .missing:visible").inner_text()
        page.click("[data-map=image]")
        expect(page.locator("#enlarged .about")).to_have_text("scan.tiff")
        expect(page.locator("#enlarged canvas")).to_be_hidden()  # it has the depth of the image before
        page.keyboard.press("Escape")
        page.click("#tab-scene")
        expect(page.get_by_label("Painted with").locator("option")).to_have_text(TITLES)


def test_a_busy_server_is_asked_again_when_it_says_so(server: Server, browser: Browser) -> None:
    error = {"code": "overloaded", "message": "2 requests are waiting", "hint": "wait"}
    answers = [(429, "1"), (503, "0")]

    def refuse(route: Route) -> None:
        if not answers:
            route.continue_()
            return
        status, after = answers.pop(0)
        route.fulfill(status=status, headers={"Retry-After": after}, json={"error": error})

    with visit(browser, server.url, allow=("429 ", "503 ")) as page:
        page.route("**/predict?**", refuse)
        page.evaluate(  # every text: it stays for a second, and a busy machine may look too late
            """() => {
            const status = document.getElementById("status");
            window.said = [];
            new MutationObserver(() => window.said.push(status.textContent))
                .observe(status, { childList: true });
        }"""
        )
        page.set_input_files("#file", PHOTO)
        answered(page)
        assert not answers
        said = page.evaluate("window.said")
        for seconds in (1, 0):
            assert f"2 requests are waiting. Trying again in {seconds} s." in said
        assert not page.get_by_role("alert").is_visible()


def test_the_wait_for_a_busy_server_is_no_longer_told_when_it_is_over(
    server: Server, browser: Browser
) -> None:
    error = {"code": "not_ready", "message": "the model is being loaded", "hint": "wait"}
    answers = [503]

    def refuse(route: Route) -> None:
        if answers:
            route.fulfill(status=answers.pop(), headers={"Retry-After": "0"}, json={"error": error})
        else:
            route.continue_()

    with visit(browser, server.url, allow=("503 ",)) as page:
        page.route("**/models", refuse)
        page.reload()
        page.wait_for_selector("#tasks li")
        assert not answers
        assert page.get_by_role("status").inner_text() == ""


def test_an_answer_that_is_cut_is_said_to_be(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, allow=("ERR_",)) as page, cut_answers() as url:
        page.route("**/predict?**", lambda route: route.continue_(url=url))
        page.set_input_files("#file", PHOTO)
        assert problem(page).startswith("The server did not answer, or not to the end. See whether")


def test_everything_can_be_done_with_the_keyboard(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        # The browser is told here to hand over its file choosers: told only just before the key, it may take
        # the key first and open a chooser of its own. What tab_to asks of the page comes after this.
        page.on("filechooser", lambda chooser: None)

        def tab_to(selector: str) -> None:
            for _ in range(60):
                if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return
                page.keyboard.press("Tab")
            raise AssertionError(f"Tab does not reach {selector}")

        tab_to("#file")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(PHOTO)
        answered(page)
        tab_to("[data-map=depth]")
        pixel = page.locator("#view-maps .value").first
        page.keyboard.press("ArrowRight")
        expect(pixel).to_have_text("257, 256")
        page.keyboard.press("Shift+ArrowUp")
        expect(pixel).to_have_text("257, 246")
        now = values(page)
        said = f"x 257, y 246: Objects {now['semseg']}; Distance {now['depth']};"
        expect(page.locator("#spoken")).to_contain_text(said)
        page.keyboard.press("Enter")
        expect(page.locator("#enlarged .frame")).to_be_focused()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#enlarged .readout dd").first).to_have_text("256, 246")
        tab_to("[data-step='1']")
        page.keyboard.press("Enter")
        expect(page.locator("#enlarged-title")).to_have_text("Surface directions")
        page.keyboard.press("Escape")
        expect(page.locator("#enlarged")).to_be_hidden()
        # The browser gives the focus back to what opened the dialog, then tells the page, which moves it.
        expect(page.locator("[data-map=normals]")).to_be_focused()
        tab_to(".legend button")
        page.keyboard.press("Space")
        expect(page.locator(":focus")).to_have_attribute("aria-pressed", "true")
        page.focus("#tab-maps")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#view-overlay")).to_be_visible()
        tab_to("input[name=overlay-map]")
        page.keyboard.press("ArrowRight")
        expect(page.locator("input[name=overlay-map]:checked")).to_have_value("depth")
        tab_to("#view-overlay input[type=range]")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#view-overlay output")).to_have_text("61 %")
        page.focus("#tab-overlay")
        for view in ("cutout", "scene"):
            page.keyboard.press("ArrowRight")
            expect(page.locator(f"#view-{view}")).to_be_visible()
        tab_to("canvas.scene")


def test_a_server_with_keys_is_asked_with_one(browser: Browser, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"page: {KEY}\n")
    server = Server(api_keys_file=keys)
    try:
        with visit(browser, server.url, allow=("401 ",), ready="#key[open]") as page:
            field = page.get_by_label("API key", exact=True)
            field.fill("\N{CYRILLIC SMALL LETTER KA}\N{CYRILLIC SMALL LETTER EL}")  # no header can hold it
            page.keyboard.press("Enter")
            assert page.locator("#key[open]").is_visible()
            assert not field.evaluate("field => field.validity.valid")
            field.fill("wrong-key-0123456789")
            page.keyboard.press("Enter")
            page.get_by_text("did not take that key").wait_for()
            field.fill(KEY)
            page.get_by_role("button", name="Continue").click()
            expect(page.locator("#tasks li")).to_have_count(5)
            give(page)
            stores = "[Object.values(sessionStorage), Object.values(localStorage), document.cookie]"
            assert page.evaluate(stores) == [[KEY], [], ""]
        with visit(browser, server.url, allow=("401 ",), ready="#key[open]") as page:
            page.get_by_role("button", name="Cancel").click()
            assert "no API key" in problem(page)
            page.set_input_files("#file", PHOTO)
            page.get_by_label("API key", exact=True).fill(f" {KEY} ")
            page.get_by_role("button", name="Continue").click()
            answered(page)
            expect(page.locator("#tasks li")).to_have_count(5)  # what could not be asked at the start
    finally:
        server.stop()


def test_several_models_and_other_tasks_are_offered(browser: Browser, tmp_path: Path) -> None:
    flat = make_bundle(tmp_path / "flat", FLAT, (PARITY,))
    server = Server(DEFAULT_BUNDLE, flat)
    try:
        with visit(browser, server.url) as page:
            give(page, SMALL)
            assert page.locator("#view-maps .name").all_inner_texts() == ["Image", *TITLES, "parity"]
            page.click("#tab-scene")
            with page.expect_response(lambda response: "model=tiny" in response.url):
                page.select_option("#model", "tiny")
            page.locator("#tab-scene").wait_for(state="hidden")  # there is no depth
            answered(page)
            assert page.locator("#view-maps").is_visible()
            assert page.locator("#view-maps .name").all_inner_texts() == ["Image", "parity"]
            assert page.locator(".legend h3").all_inner_texts() == ["parity"]
            assert page.locator(".legend .label").all_inner_texts() == ["even", LONG]
            page.set_viewport_size({"width": 360, "height": 740})
            until(page, lambda: page.evaluate("innerWidth") == 360)
            assert page.evaluate("document.documentElement.scrollWidth") == 360
    finally:
        server.stop()


def test_the_page_works_below_a_prefix(server: Server, browser: Browser) -> None:
    """As behind a proxy that gives the server a folder of a site and takes its name off."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    asked: list[str] = []

    def forward(route: Route) -> None:
        path = route.request.url.removeprefix(server.url)
        asked.append(path)
        assert path.startswith("/sub/")
        route.fulfill(response=route.fetch(url=server.url + path.removeprefix("/sub")))

    page.route("**/*", forward)
    page.goto(f"{server.url}/sub/")
    page.click("#example")
    answered(page)
    assert page.locator("#view-maps figure").count() == 6
    assert any(path.startswith("/sub/predict?") for path in asked)
    expect(page.locator("#tasks li")).to_have_count(5)  # nothing is under way any more
    context.close()
