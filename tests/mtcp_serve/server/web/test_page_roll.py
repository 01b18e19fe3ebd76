"""The demo page and several images at once: the strip of them, and one archive of all their maps."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.mtcp_serve.browser import hold, needs_chromium, problem, until, visit
from tests.mtcp_serve.process import Server
from tests.mtcp_serve.support import encode, noise

pytestmark = needs_chromium
LETTER: dict[str, Any] = {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"hello"}


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    server = Server(bundle)
    yield server
    server.stop()


def photos(count: int) -> list[dict[str, Any]]:
    """``count`` images, each a little wider than the one before."""
    return [
        {"name": f"{index}.png", "mimeType": "image/png", "buffer": encode(noise(30, 40 + index, index))}
        for index in range(count)
    ]


def show_all(page: Page, files: list[dict[str, Any]]) -> None:
    page.set_input_files("#file", files)  # type: ignore[arg-type]
    expect(page.locator("#roll-count")).to_have_text(f"{len(files)} images")


def shows(page: Page, index: int) -> None:
    """Wait until the image ``index`` is the one that is shown."""
    expect(page.locator("#view-maps .about").first).to_have_text(
        f"{40 + index} \N{MULTIPLICATION SIGN} 30 PNG"
    )
    expect(page.locator("#roll-items button").nth(index)).to_have_attribute("aria-current", "true")


def test_every_image_gets_its_maps_and_any_can_be_looked_at(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        show_all(page, photos(6))
        shows(page, 0)
        expect(page.get_by_role("status")).to_have_text("6 images are done.")
        buttons = page.locator("#roll-items button")
        assert [button.locator(".minis canvas").count() for button in buttons.all()] == [5] * 6
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        buttons.nth(5).click()
        shows(page, 5)
        assert asked == []  # the last answers are kept
        page.keyboard.press("ArrowRight")
        expect(buttons.nth(0)).to_be_focused()
        page.keyboard.press("ArrowRight")
        with page.expect_request("**/predict?**"):  # not all are
            page.keyboard.press("Enter")
        shows(page, 1)
        axe = Axe().run(page)
        assert axe.violations_count == 0, axe.generate_report()
        with page.expect_request("**/predict?**size=model**"):
            page.select_option("#size", "model")
        expect(page.locator("#made-size")).to_have_text("32 \N{MULTIPLICATION SIGN} 24")
        expect(page.locator("#roll-count")).to_have_text("6 images")
        shows(page, 1)
        page.set_input_files("#file", photos(1))  # type: ignore[arg-type]
        expect(page.locator("#roll")).to_be_hidden()


def test_a_file_that_is_no_image_keeps_none_from_its_maps(server: Server, browser: Browser) -> None:
    files = photos(3)
    files[1] = LETTER
    with visit(browser, server.url, allow=("400 (Bad Request)",)) as page:
        show_all(page, files)
        assert problem(page).startswith("letter.txt: The bytes are not an image")
        states = page.locator("#roll-items .state").all_inner_texts()
        assert states == ["", "failed", ""]
        with page.expect_download() as started:
            page.get_by_role("button", name="Download all (zip)").click()
        assert started.value.suggested_filename == "maps.zip"
        with ZipFile(started.value.path()) as archive:
            assert archive.testzip() is None
            folders = {name.partition("/")[0] for name in archive.namelist()}
            assert folders == {"001-0", "002-2"}
            for folder, photo in zip(sorted(folders), (files[0], files[2]), strict=True):
                body = server.predict(photo["buffer"], "format=zip&visualize=true&refine=true").content
                with ZipFile(io.BytesIO(body)) as want:
                    names = want.namelist()
                    assert [n for n in archive.namelist() if n.startswith(folder)] == [
                        f"{folder}/{name}" for name in names
                    ]
                    for name in names:
                        if not name.startswith("metadata"):  # the timings in it differ
                            assert archive.read(f"{folder}/{name}") == want.read(name)
        expect(page.get_by_role("status")).to_have_text(
            "maps.zip is ready: 2 of 3 images; letter.txt failed."
        )


def test_the_first_image_that_has_maps_is_shown(server: Server, browser: Browser) -> None:
    files = photos(4)
    files[0] = LETTER
    with visit(browser, server.url, allow=("400 (Bad Request)",)) as page:
        show_all(page, files)
        shows(page, 1)
        assert problem(page).startswith("letter.txt: The bytes are not an image")
        page.locator("#roll-items button").nth(0).click()
        expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
        show_all(page, files)  # nor is the image of before shown any longer than that
        shows(page, 1)


def test_one_zip_of_what_can_be_had_while_images_wait(server: Server, browser: Browser) -> None:
    files = photos(3)
    files[1] = LETTER
    with visit(browser, server.url, allow=("400 (Bad Request)",)) as page:
        hold(page, "**/predict?format=npz**")
        with page.expect_request("**/predict?**"):
            page.set_input_files("#file", files)  # type: ignore[arg-type]
        with page.expect_download() as started:
            page.get_by_role("button", name="Download all (zip)").click()
        with ZipFile(started.value.path()) as archive:
            assert {name.partition("/")[0] for name in archive.namelist()} == {"001-0", "002-2"}
        said = page.get_by_role("status")
        expect(said).to_have_text("maps.zip is ready: 2 of 3 images; letter.txt failed.")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_no_zip_of_nothing(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, allow=("400 (Bad Request)",)) as page:
        button = page.get_by_role("button", name="Download all (zip)")
        held = hold(page, "**/predict?format=npz**")
        with page.expect_request("**/predict?**"):
            page.set_input_files("#file", [LETTER] * 5)  # type: ignore[arg-type]
        button.click()
        expect(page.get_by_role("status")).to_have_text("There is no maps.zip: no image has maps.")
        until(page, lambda: held)
        held[0].continue_()
        expect(page.locator("#roll-count")).to_have_text("5 images")
        expect(button).to_be_disabled()


def test_a_server_that_is_gone_is_not_asked_for_every_image(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, allow=("ERR_FAILED",)) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.route("**/predict?**", lambda route: route.abort())
        page.set_input_files("#file", photos(4))  # type: ignore[arg-type]
        assert problem(page).startswith("0.png: The server did not answer")
        assert page.locator("#roll-items .state").all_inner_texts() == ["failed"] * 4
        assert len(asked) == 1
        page.unroute("**/predict?**")
        third = page.locator("#roll-items button").nth(2)
        expect(third).to_have_attribute("title", re.compile("^The server did not answer"))
        third.click()  # a failed one is asked for again
        shows(page, 2)
        expect(third).to_have_attribute("title", "2.png")


def test_a_file_that_is_gone_keeps_none_from_its_maps(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    paths = [tmp_path / photo["name"] for photo in photos(4)]
    for path, photo in zip(paths, photos(4), strict=True):
        path.write_bytes(photo["buffer"])
    with visit(browser, server.url, allow=("ERR_FILE_NOT_FOUND",)) as page:
        held = hold(page, "**/predict?**")
        with page.expect_request("**/predict?**"):
            page.set_input_files("#file", paths)
        paths[2].unlink()
        until(page, lambda: held)
        held[0].continue_()
        expect(page.locator("#roll-count")).to_have_text("4 images")
        assert problem(page) == "2.png: The file cannot be read. Is it a folder, or was it moved?"
        assert page.locator("#roll-items .state").all_inner_texts() == ["", "", "failed", ""]


def test_a_folder_keeps_none_from_its_maps(server: Server, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    [photo] = photos(1)
    (tmp_path / "0.png").write_bytes(photo["buffer"])
    with visit(browser, server.url, allow=("ERR_FILE_NOT_FOUND", "ERR_ACCESS_DENIED")) as page:
        files = [str(tmp_path / name) for name in ("folder", "0.png")]
        session = page.context.new_cdp_session(page)
        for kind in ("dragEnter", "dragOver", "drop"):  # no event of a script's can hold a folder
            data = {"items": [], "files": files, "dragOperationsMask": 1}
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
        assert problem(page) == "folder: The file cannot be read. Is it a folder, or was it moved?"
        expect(page.locator("#roll-count")).to_have_text("2 images")
        assert page.locator("#roll-items .state").all_inner_texts() == ["failed", ""]


def test_too_many_files_are_refused(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as page:
        page.set_input_files("#file", photos(1) * 101)  # type: ignore[arg-type]
        assert problem(page).startswith("Those are 101 files. Give 100 at a time")
