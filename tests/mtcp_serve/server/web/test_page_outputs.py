"""The demo page in a real browser: overlay, wipe, cut-out, measuring, and what people take away."""

import contextlib
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import Browser, Page, expect

from mtcp_serve.kinds.colormaps import colormap_names
from tests.mtcp_serve.browser import (
    PHONE,
    PHOTO,
    SMALL,
    TASKS,
    give,
    look,
    needs_chromium,
    pixels,
    until,
    visit,
)
from tests.mtcp_serve.process import Server
from tests.mtcp_serve.support import encode

pytestmark = needs_chromium


def test_the_overlay_leaves_the_background_as_it_is(page: Page, answer: Any) -> None:
    page.click("#tab-overlay")
    page.locator("#view-overlay label", has_text="Objects").click()
    seen = pixels(page.locator("#view-overlay canvas").nth(1))[..., 3]
    background = answer["semseg"] == 0
    assert (seen[background] == 0).all()
    assert (seen[~background] > 200).all()


def test_borders_are_drawn_at_the_resolution_of_the_screen(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, device_scale_factor=3) as page:
        give(page, SMALL)
        page.click("#tab-overlay")
        frame, lines = page.locator("#view-overlay .frame"), page.locator("#view-overlay canvas").nth(2)
        expect(lines).to_be_visible()
        box = frame.bounding_box()
        assert box is not None
        size = [round(3 * box["height"]), round(3 * box["width"])]
        until(page, lambda: lines.evaluate("canvas => [canvas.height, canvas.width]") == size)
        white = pixels(lines).min(-1) > 250
        assert 0.001 < white.mean() < 0.05
        page.locator("#view-overlay label", has_text="Distance").click()
        expect(lines).to_be_hidden()


def test_borders_go_between_pixels(page: Page) -> None:
    drawn = page.evaluate(
        """async () => {
        const lines = [];
        const { Path2D } = window;
        window.Path2D = class { moveTo(...at) { lines.push(at) } lineTo(...to) { lines.at(-1).push(...to) } };
        const { borders } = await import("/web/borders.js");
        borders([1, 1, 2, 1, 2, 2, 3, 2, 2], 3, 3);
        window.Path2D = Path2D;
        return lines;
    }"""
    )
    assert [2, 0.5, 1.5, 1] in drawn  # cuts the corner of the class 1
    assert len(drawn) == 5
    assert {tuple(line[:2]) for line in drawn[1:]} >= {(1, 2)}  # three classes meet in the middle of a square


def test_the_wipe_shows_the_image_on_one_side_and_the_map_on_the_other(page: Page) -> None:
    page.click("#tab-overlay")
    page.locator("#view-overlay label", has_text="Distance").click()
    frame = page.locator("#view-overlay .frame")
    slider = page.get_by_label("Opacity")
    looks = {}
    for percent in (0, 100):
        slider.fill(str(percent))
        page.mouse.move(1, 1)
        looks[percent] = look(frame)
    page.locator("#view-overlay label", has_text="Wipe").click()
    page.get_by_label("Border between image and map").fill("30")
    page.mouse.move(1, 1)
    expect(frame.locator(".cross")).to_be_hidden()
    seen = look(frame)
    border = round(0.3 * seen.shape[1])
    photo, chart = np.abs(seen - looks[0]), np.abs(seen - looks[100])
    assert photo[:, : border - 4].max() <= 1  # a clipped and a blended layer may be rounded apart
    assert chart[:, border + 4 :].max() <= 1
    assert photo[:, border + 4 :].mean() > 20 < chart[:, : border - 4].mean()
    page.locator("#view-overlay label", has_text="Blend").click()
    expect(slider).to_be_visible()


def test_the_cut_out_is_that_of_the_gateway(page: Page, server: Server) -> None:
    page.click("#tab-cutout")
    canvas = page.locator("#view-cutout canvas")
    expect(canvas).to_be_visible()
    expect(page.get_by_role("button", name="Download PNG")).to_be_enabled()
    with page.expect_download() as started:
        page.get_by_role("button", name="Download PNG").click()
    assert started.value.suggested_filename == "astronaut-cutout.png"
    assert started.value.path().read_bytes() == server.predict(PHOTO.read_bytes(), "format=cutout").content


def test_the_colour_behind_the_cut_out_is_asked_for_only_to_be_kept(page: Page, server: Server) -> None:
    page.click("#tab-cutout")
    canvas, save = page.locator("#view-cutout canvas"), page.get_by_role("button", name="Download PNG")
    expect(save).to_be_enabled()
    clear = look(canvas)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_label("Background", exact=True).check()
    for color in ("#ff0000", "#0000ff", "#00ff00"):  # as when it is dragged in the browser's own dialog
        page.get_by_label("Colour of the background").fill(color)
        expect(save).to_be_enabled()
    seen = look(canvas)
    assert asked == []
    with page.expect_download() as started:
        save.click()
    assert len(asked) == 1
    kept = started.value.path().read_bytes()
    assert kept == server.predict(PHOTO.read_bytes(), "format=cutout&background=%2300ff00").content
    red_green_blue, opacity = np.split(pixels(canvas).astype(np.float64), [3], axis=-1)
    over = np.array([0, 255, 0]) + opacity / 255 * (red_green_blue - [0, 255, 0])
    assert np.abs(over - np.asarray(Image.open(io.BytesIO(kept)))).max() <= 2
    corner = (20, -20)  # within the round one
    assert opacity[corner] == 0
    assert seen[corner].tolist() == [0, 255, 0] != clear[corner].tolist()
    page.get_by_label("Background", exact=True).uncheck()
    assert np.array_equal(look(canvas), clear)
    page.click("#tab-maps")
    page.click("#tab-cutout")
    expect(save).to_be_enabled()
    assert len(asked) == 1


def test_the_cut_out_of_a_large_image_is_kept_at_its_size(server: Server, browser: Browser) -> None:
    """Seen is one of the model's size; what is downloaded and copied has the pixels of the image."""
    photo = encode(Image.open(PHOTO).resize((900, 1400)), "JPEG", quality=60)
    with visit(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        give(page, {"name": "tall.jpg", "mimeType": "image/jpeg", "buffer": photo})
        page.click("#tab-cutout")
        save, copy = (page.locator(f"#view-cutout [data-{name}]") for name in ("save", "copy"))
        expect(save).to_be_enabled()
        with page.expect_download() as started:
            save.click()
        assert started.value.path().read_bytes() == server.predict(photo, "format=cutout").content
        expect(save).to_be_enabled()
        copy.click()
        expect(copy).to_have_text("Copied")
        copied = """async () => {
          const [item] = await navigator.clipboard.read();
          const picture = await createImageBitmap(await item.getType("image/png"));
          return [picture.width, picture.height];
        }"""
        assert page.evaluate(copied) == [900, 1400]


def test_two_points_are_as_far_apart_as_their_depths_say(page: Page) -> None:
    """On a wall 2 m away, seen 90 degrees wide, half the width is 2 m."""
    found = page.evaluate(
        """async () => {
        const { Measure } = await import("/web/measure.js");
        const { buildMesh } = await import("/web/mesh.js");
        const { cameraMatrix } = await import("/web/renderer.js");
        const box = document.createElement("div");
        box.style.cssText = "position: fixed; left: 0; top: 0";
        const canvas = document.createElement("canvas");
        canvas.style.cssText = "display: block; width: 400px; height: 400px";
        box.append(canvas);
        document.body.append(box);
        const output = document.createElement("p");
        const measure = new Measure(output, canvas);
        const values = new Float32Array(40 * 40).fill(2);
        measure.use(buildMesh({ width: 40, height: 40, values }), true);
        const view = { yaw: 0, pitch: 0, pivot: 2, distance: 2, tangents: [1, 1], near: 0.1, far: 50 };
        measure.draw([1, 1], cameraMatrix(view));
        const said = [output.textContent];
        measure.mark(105, 205);
        said.push(output.textContent);
        measure.mark(305, 205);
        said.push(output.textContent);
        const places = ({ style, hidden }) => [style.left, style.top, hidden];
        const dots = [...box.querySelectorAll(".dot")].map(places);
        measure.mark(5000, 5000);
        said.push(output.textContent);
        box.remove();
        return { said, dots, distance: measure.distance };
    }"""
    )
    assert found["said"][1] == "Click the second point"
    assert found["said"][2] == found["said"][3] == "2.00 m between the two points"
    assert found["distance"] == pytest.approx(2)
    assert found["dots"] == [["105px", "205px", False], ["305px", "205px", False]]


def test_the_field_of_view_starts_where_the_answer_says(server: Server, browser: Browser) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 28
    small = Image.open(PHOTO).resize((150, 100))
    wide = {"name": "wide.jpg", "mimeType": "image/jpeg", "buffer": encode(small, "JPEG", exif=exif)}
    with visit(browser, server.url) as page:
        give(page, wide)
        page.click("#tab-scene")
        slider = page.get_by_label("Field of view")
        expect(slider).to_have_value("65")  # 28 mm before 36 x 24 mm
        expect(page.locator("[data-source]")).to_have_text("the image's EXIF says so")
        slider.fill("40")
        expect(page.locator("[data-source]")).to_have_text("as you set it")
        with page.expect_request("**/predict?format=glb&fov_x=40&**"):
            page.get_by_role("button", name="3-D model (GLB)").click()
        page.get_by_role("status").filter(has_text="wide.glb is ready").wait_for()
        give(page, SMALL)
        expect(slider).to_have_value("60")


def test_depth_has_the_colors_of_the_gateways_tables(page: Page, server: Server, answer: Any) -> None:
    page.click("#tab-maps")
    choice = page.get_by_label("Colours of depth")
    assert choice.locator("option").all_inner_texts() == list(colormap_names())
    chart = page.locator("[data-map=depth] canvas")
    body = server.predict(PHOTO.read_bytes(), "format=npz&tasks=depth&colormap=turbo&refine=true").content
    want = np.load(io.BytesIO(body))["depth.visualization"].astype(int)
    sent = answer["depth.visualization"].astype(int)
    bar = page.locator(".colorbar canvas")
    before = bar.evaluate("canvas => canvas.toDataURL()")

    def seen() -> Any:
        return pixels(chart)[..., :3]

    with page.expect_response("**/web/colormaps.json"):
        choice.select_option("turbo")
    until(page, lambda: np.abs(seen() - want).max() <= 8)  # a step of the table, where rounding differs
    assert (seen() == want).all(-1).mean() > 0.99
    assert bar.evaluate("canvas => canvas.toDataURL()") != before
    with page.expect_request("**/predict?format=png&tasks=depth&visualize=true&colormap=turbo&**"):
        page.get_by_role("button", name="Download the colour picture of Distance").click()
    page.get_by_role("status").filter(has_text="is ready").wait_for()
    choice.select_option("heat")
    until(page, lambda: (seen() == sent).all())


def test_a_map_with_nothing_in_it_says_so_and_steps_back(server: Server, browser: Browser) -> None:
    grey = encode(np.full((64, 64, 3), 128, np.uint8))
    with visit(browser, server.url) as page:
        give(page, {"name": "grey.png", "mimeType": "image/png", "buffer": grey})
        tile = page.locator("figure", has=page.locator("[data-map=parsing]"))
        expect(tile).to_have_class(re.compile("empty"))
        expect(tile.locator("p.about")).to_have_text("Nothing of these classes in this image")


def test_header_and_content_begin_at_the_same_place(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, viewport={"width": 1920, "height": 900}) as page:
        logo, intake = (page.locator(place).bounding_box() for place in (".top img", ".intake"))
        assert logo is not None
        assert intake is not None
        assert logo["x"] == intake["x"]


def test_the_first_map_is_on_a_phones_first_screen(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, **PHONE) as page:
        give(page, SMALL)
        boxes = [page.locator(f"[data-map={name}]").bounding_box() for name in TASKS]
        assert min(box["y"] for box in boxes if box) < 740 / 2


def test_the_same_request_from_a_program(page: Page, server: Server) -> None:
    curl = page.locator("#snippet-curl").text_content()
    address = f"{server.url}/predict?format=npz&refine=true"
    assert curl == f"curl -f -F 'image=@\"astronaut.jpg\"' \\\n  '{address}' -o maps.npz"
    program = page.locator("#snippet-python").text_content() or ""
    said = io.StringIO()
    with contextlib.chdir(PHOTO.parent), contextlib.redirect_stdout(said):
        exec(program, {})
    assert said.getvalue().splitlines()[1] == "depth (512, 512)"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "the image is 9000 x 9000 = 81000000 pixels, the limit is 33554432",
            "The image is 9000 x 9000 = 81.0 megapixels, the limit is 33.6 megapixels.",
        ),
        (
            "the image has 22000000 bytes, the limit is 20971520",
            "The image has 22.0 MB, the limit is 21.0 MB.",
        ),
        ("Read it.", "Read it."),
        ("", ""),
    ],
)
def test_errors_are_sentences(page: Page, said: str, sentence: str) -> None:
    call = "async (text) => (await import('/web/sentences.js')).sentence(text)"
    assert page.evaluate(call, said) == sentence
    advice = "async (text) => (await import('/web/sentences.js')).advice(text)"
    hint = "scale the image down, or raise MTCP_MAX_PIXELS or MTCP_MAX_SIDE on the server"
    assert page.evaluate(advice, hint) == "Scale the image down."
