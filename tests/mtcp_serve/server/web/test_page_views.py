"""The demo page in a real browser: what it shows of an answer is what the answer says."""

import io
import json
import re
import time
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from mtcp_serve.inference.camera import Camera
from mtcp_serve.outputs.depth_edges import sharpen
from mtcp_serve.outputs.mesh import build_mesh
from tests.mtcp_serve.browser import (
    PATIENCE_MS,
    PHONE,
    PHOTO,
    SMALL,
    TASKS,
    TITLES,
    expected,
    give,
    look,
    needs_chromium,
    pixels,
    point,
    values,
    visit,
)
from tests.mtcp_serve.process import Server
from tests.mtcp_serve.support import encode

pytestmark = needs_chromium


def test_every_map_is_shown_exactly(page: Page, answer: Any, metadata: Any) -> None:
    page.click("#tab-maps")
    names = page.locator("#view-maps .name").all_inner_texts()
    assert names == ["Image", *TITLES]
    assert list(metadata["maps"]) == TASKS
    for name in TASKS:
        picture = pixels(page.locator(f"[data-map={name}] canvas"))
        assert (picture[..., 3] == 255).all()
        seen, sent = picture[..., :3], answer[f"{name}.visualization"]
        assert np.array_equal(seen, sent)


@pytest.mark.parametrize("tile", ["image", "depth", "parsing"])
def test_the_pointer_reads_the_values_of_the_answer(
    page: Page, answer: Any, metadata: Any, tile: str
) -> None:
    page.click("#tab-maps")
    seen = set()
    for u, v in [(0.04, 0.04), (0.42, 0.25), (0.5, 0.7), (0.77, 0.13), (0.999, 0.999)]:
        point(page.locator(f"[data-map={tile}]"), u, v)
        found = values(page)
        x, y = map(int, found["image"].split(", "))
        assert abs(x - 512 * u) <= 2
        assert abs(y - 512 * v) <= 2
        assert found == expected(answer, metadata, x, y)
        seen.add(found["depth"])
    assert len(seen) >= 4
    page.mouse.move(1, 1)
    expect(page.locator("#view-maps .value").first).to_have_text("")
    assert set(values(page).values()) == {""}


def test_the_legend_lists_the_classes_present(page: Page, answer: Any, metadata: Any) -> None:
    for task in ("semseg", "parsing"):
        info = metadata["maps"][task]
        labels = {label["id"]: label for label in info["labels"]}
        rows = page.locator(f".legend[data-task={task}] li button")
        shown = [int(row.get_attribute("data-id") or -1) for row in rows.all()]
        counts = np.bincount(answer[task].ravel(), minlength=256)
        assert shown == [*sorted(set(info["present"]) - {0}, key=lambda index: -counts[index]), 0]
        for row, index in zip(rows.all(), shown, strict=True):
            assert row.locator(".label").inner_text() == labels[index]["name"]
            colour = row.locator(".swatch").evaluate("swatch => getComputedStyle(swatch).backgroundColor")
            want = tuple(int(labels[index]["color"][at : at + 2], 16) for at in (1, 3, 5))
            assert colour == f"rgb{want}"
            share = 100 * float((answer[task] == index).mean())
            assert row.locator(".share").inner_text() == ("< 1 %" if share < 1 else f"{share:.0f} %")


def test_a_class_stands_out_when_it_is_chosen(page: Page, answer: Any) -> None:
    page.click("#tab-maps")
    button = page.locator(".legend[data-task=parsing] button", has_text="skin")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    alpha = page.eval_on_selector(
        "[data-map=parsing] canvas",
        """canvas => [...canvas.getContext("2d").getImageData(0, 150, canvas.width, 1).data]""",
    )[3::4]
    skin = answer["parsing"][150] == int(button.get_attribute("data-id") or -1)
    assert skin.any()
    assert np.array_equal(np.array(alpha) == 255, skin)
    assert (np.array(alpha) == 255).any()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_the_overlay_fades_from_the_image_to_the_map(page: Page) -> None:
    page.click("#tab-overlay")
    page.locator("#view-overlay label", has_text="Distance").click()
    page.mouse.move(1, 1)
    frame = page.locator("#view-overlay .frame")
    expect(frame.locator(".cross")).to_be_hidden()
    slider = page.get_by_label("Opacity")
    looks = {}
    for percent in (0, 50, 100):
        slider.fill(str(percent))
        expect(page.locator("#view-overlay output")).to_have_text(f"{percent} %")
        looks[percent] = look(frame)
    assert np.abs(looks[100] - looks[0]).mean() > 30
    assert np.abs(looks[50] - (looks[0] + looks[100]) / 2).max() <= 2
    page.locator("#view-overlay label", has_text="Subject").click()
    page.mouse.move(1, 1)
    expect(frame.locator(".cross")).to_be_hidden()
    assert np.abs(look(frame) - looks[100]).mean() > 30


def test_the_overlay_reads_values_too(page: Page, answer: Any, metadata: Any) -> None:
    page.click("#tab-overlay")
    point(page.locator("#view-overlay .frame"), 0.3, 0.6)
    cells = page.locator("#view-overlay .readout dd").all_inner_texts()
    x, y = map(int, cells[0].split(", "))
    assert cells == list(expected(answer, metadata, x, y).values())


def test_timings_are_those_of_the_server_and_add_up(page: Page) -> None:
    rows = page.locator("#timings dl div").all_inner_texts()
    found = {name: float(ms.removesuffix(" ms")) for name, ms in (row.split("\n") for row in rows)}
    assert list(found) == ["queue", "decode", "infer", "encode", "transfer", "round trip"]
    assert found["infer"] > 0
    total = found.pop("round trip")
    assert abs(sum(found.values()) - total) <= 0.5 * len(found) + 0.5


@pytest.mark.parametrize(
    ("button", "query", "name"),
    [
        (
            "Download the values of Distance as PNG",
            "format=png&tasks=depth&refine=true",
            "astronaut-depth.png",
        ),
        (
            "Download the colour picture of Clothes and skin",
            "format=png&tasks=parsing&visualize=true&refine=true",
            "astronaut-parsing-colour.png",
        ),
        ("PNGs (zip)", "format=zip&visualize=true&refine=true", "astronaut-maps.zip"),
        ("npz", "format=npz&refine=true", "astronaut-maps.npz"),
        ("JSON", "format=json&refine=true", "astronaut-maps.json"),
        ("Points (PLY)", "format=ply", "astronaut.ply"),
        ("3-D model (GLB)", "format=glb", "astronaut.glb"),
        ("Cut-out (PNG)", "format=cutout", "astronaut-cutout.png"),
    ],
)
def test_downloads_are_the_files_of_the_gateway(
    page: Page, server: Server, button: str, query: str, name: str
) -> None:
    page.click("#tab-maps")
    with page.expect_download() as started:
        page.get_by_role("button", name=button, exact=True).click()
    assert started.value.suggested_filename == name
    found = started.value.path().read_bytes()
    want = server.predict(PHOTO.read_bytes(), query).content
    match name.rpartition(".")[2]:
        case "png" | "ply" | "glb":
            assert found == want
        case "json":
            assert json.loads(found)["maps"] == json.loads(want)["maps"]
        case _:  # the timings in it differ
            with ZipFile(io.BytesIO(found)) as ours, ZipFile(io.BytesIO(want)) as theirs:
                assert ours.namelist() == theirs.namelist()
                maps = [member for member in ours.namelist() if not member.startswith("metadata")]
                assert len(maps) >= 5
                assert all(ours.read(member) == theirs.read(member) for member in maps)


def test_the_scene_turns_by_mouse_and_by_keys(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, viewport={"width": 700, "height": 500}) as page:
        give(page, SMALL)
        page.click("#tab-scene")
        canvas = page.locator("canvas.scene")
        expect(canvas).to_be_visible()
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None

        def scene() -> NDArray[np.int16]:
            return look(canvas)[8:-8, 8:-8]  # without the focus ring

        looks = [scene()]
        drawn = (np.abs(looks[0] - looks[0][0, 0]).max(-1) > 20).mean()
        assert 0.2 < drawn < 0.95

        def changed() -> None:
            """Wait for another picture; the wheel, for one, is told the page some time later."""
            patience = time.monotonic() + PATIENCE_MS / 1000
            while np.abs((seen := scene()) - looks[-1]).mean() <= 1:
                assert time.monotonic() < patience, "the scene stands still"
            looks.append(seen)

        page.mouse.move(box["x"] + 300, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 360, box["y"] + 165, steps=2)
        page.mouse.up()
        changed()
        canvas.focus()
        for key in ("ArrowLeft", "ArrowUp", "+"):
            page.keyboard.press(key)
            changed()
        page.mouse.wheel(0, 240)
        changed()
        page.get_by_label("Painted with").select_option("normals")
        changed()
        page.get_by_label("Field of view").fill("90")
        changed()
        page.get_by_label("Painted with").select_option("image")
        page.get_by_label("Field of view").fill("60")
        canvas.focus()
        page.keyboard.press("Home")
        assert np.array_equal(scene(), looks[0])


def test_the_camera_of_the_scene_is_right(page: Page) -> None:
    seen = page.evaluate(
        """async () => {
        const { cameraMatrix } = await import("/web/renderer.js");
        const tangents = [0.6, 0.4];
        const project = (view, point) => {
          const m = cameraMatrix({ pivot: 2, tangents, near: 0.1, far: 50, ...view });
          const clip = [0, 1, 2, 3].map(
            (row) => m[row] * point[0] + m[4 + row] * point[1] + m[8 + row] * point[2] + m[12 + row]);
          return clip.slice(0, 3).map((part) => part / clip[3]);
        };
        const front = { yaw: 0, pitch: 0, distance: 2 };
        return {
          front: project(front, [0.6 * 0.5 * 5, 0.4 * -0.25 * 5, -5]),  // as the image's own camera saw it
          near: project(front, [0, 0, -0.1]),
          far: project(front, [0, 0, -50]),
          pivot: project({ yaw: 1, pitch: -0.7, distance: 3 }, [0, 0, -2]),
          side: project({ yaw: Math.PI / 2, pitch: 0, distance: 3 }, [0, 0, -3]),
        };
    }"""
    )
    assert seen["front"][:2] == pytest.approx([0.5, -0.25], abs=1e-5)
    assert [seen["near"][2], seen["far"][2]] == pytest.approx([-1, 1], abs=1e-4)
    assert seen["pivot"][:2] == pytest.approx([0, 0], abs=1e-5)
    # a quarter turn: what lay a metre behind the pivot now lies a metre beside it, three before the camera
    assert seen["side"][:2] == pytest.approx([-1 / 3 / 0.6, 0], abs=1e-5)


def test_the_surface_is_torn_where_depth_jumps(page: Page) -> None:
    found = page.evaluate(
        """async () => {
        const { buildMesh } = await import("/web/mesh.js");
        const columns = (depth) => {
          const at = (index) => depth(index % 40, Math.floor(index / 40));
          const values = Float32Array.from({ length: 40 * 30 }, (_, index) => at(index));
          const mesh = buildMesh({ width: 40, height: 30, values });
          const used = new Set([...mesh.triangles].map((at) => at % 40));
          return { ...mesh, triangles: mesh.triangles.length / 3, used: [...used].sort((a, b) => a - b),
                   vertices: [...mesh.vertices.slice(0, 3)], places: [...mesh.vertices],
                   depths: [...mesh.vertices].filter((_, at) => at % 3 === 2) };
        };
        return {
          flat: columns(() => 2),
          slope: columns((x) => 2 + x / 20),
          step: columns((x) => (x < 20 ? 1 : 9)),
          slant: columns((x, y) => (x + y / 2 < 25 ? 1 : 9)),
          ramp: columns((x) => Math.min(Math.max(1 + 2 * (x - 17), 1), 9)),
          hole: columns((x, y) => (x === 10 && y === 10 ? 0 : 3)),
        };
    }"""
    )
    full = 2 * 39 * 29
    assert found["flat"]["triangles"] == found["slope"]["triangles"] == full
    assert found["flat"]["vertices"] == pytest.approx([-1 + 1 / 40, 1 - 1 / 30, 2])
    assert found["step"]["used"] == [*range(40)]  # both surfaces keep their rims
    assert found["step"]["triangles"] == full - 2 * 29
    assert found["ramp"]["triangles"] == full - 2 * 29  # the ramp between them goes to either
    assert set(found["ramp"]["depths"]) == {1, 9}
    assert (found["step"]["nearest"], found["step"]["farthest"]) == (1, 9)
    places = np.array(found["slant"]["places"]).reshape(30, 40, 3)
    rims = [line[line[:, 2] == 1][-1] for line in places[6:24]]  # the last of the nearer surface in each row
    x, y = ((np.array(rims)[:, axis] + 1) / 2 * size for axis, size in ((0, 40), (1, 30)))
    off = x - np.polyval(np.polyfit(y, x, 1), y)
    assert np.abs(off).max() < 0.1  # of a cell; the stairs have 0.25
    assert found["hole"]["triangles"] == full - 4  # each of the four squares at it keeps half


def test_the_surface_is_that_of_the_gateway(page: Page) -> None:
    """One rule in two languages: the same triangles, and vertices at the same places."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:120, :160]
    depth = 240 / (y + 30.0)  # a floor that goes away, on it a ball, a box and a bar
    ball = 40**2 - (x - 110.0) ** 2 - (y - 50) ** 2
    depth = np.where(ball > 0, 2.2 - np.sqrt(np.maximum(ball, 0)) / 60, depth)
    depth[20:90, 20:50] = 1.9
    depth[5:115, 70:74] = 1.5
    logs = np.log(depth)
    for axis in (0, 1):  # as soft as a network's
        logs = np.mean([np.roll(logs, by, axis) for by in (-2, -1, 0, 1, 2)], axis=0)
    values = (np.exp(logs) * rng.uniform(0.999, 1.001, depth.shape)).astype(np.float32)
    values[60:64, 8:14] = 0
    seen = page.evaluate(
        """async ([width, height, values]) => {
        const { buildMesh } = await import("/web/mesh.js");
        const mesh = buildMesh({ width, height, values: Float32Array.from(values) });
        return { vertices: [...mesh.vertices], triangles: [...mesh.triangles], points: [...mesh.points] };
    }""",
        [160, 120, values.ravel().tolist()],
    )
    mesh = build_mesh(sharpen(values), values, Camera.of_fov_x(160, 120, 60, "request"))
    points = np.array(seen["points"])
    assert np.array_equal(np.searchsorted(points, seen["triangles"]), mesh.triangles.ravel())
    u, v, depths = np.array(seen["vertices"]).reshape(-1, 3)[points].T
    assert np.column_stack([(u + 1) / 2, (1 - v) / 2]) == pytest.approx(mesh.places, abs=1e-5)
    assert depths == pytest.approx(-mesh.positions[:, 2], rel=1e-5)
    assert len(mesh.triangles) < 2 * 119 * 159 - 600  # it is torn
    moved = np.abs(mesh.places * (160, 120) - 0.5 - np.column_stack([points % 160, points // 160])).max(
        axis=1
    )
    assert (moved > 0.1).sum() > 300  # and its rims are smooth


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(server: Server, browser: Browser, scheme: Any) -> None:
    with visit(browser, server.url, color_scheme=scheme, reduced_motion="reduce") as page:
        axe = Axe()

        def check() -> None:
            results = axe.run(page)
            assert results.violations_count == 0, results.generate_report()

        check()
        give(page, SMALL)
        page.focus("[data-map=depth]")
        page.keyboard.press("ArrowRight")
        check()
        for tab in ("overlay", "cutout", "scene"):
            page.click(f"#tab-{tab}")
            expect(page.locator(f"#view-{tab}")).to_be_visible()
            check()
        page.click("#tab-maps")
        page.click("[data-map=semseg]")
        expect(page.locator("#enlarged")).to_be_visible()
        check()


def test_a_phone_shows_one_column_and_nothing_overflows(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, **PHONE) as page:
        take = page.get_by_label("Take a photo")
        assert take.get_attribute("capture") == "environment"
        assert page.get_by_text("Take a photo").is_visible()
        give(page, {**SMALL, "name": f"{'long' * 50}.png"})

        def fits() -> bool:
            width = PHONE["viewport"]["width"]  # innerWidth grows with what overflows
            return bool(page.evaluate("document.documentElement.scrollWidth") == width)

        assert fits()
        lefts = {tile.bounding_box()["x"] for tile in page.locator(".tile").all()}  # type: ignore[index]
        assert len(lefts) == 1
        for tab in ("overlay", "cutout", "scene"):
            page.tap(f"#tab-{tab}")  # the browser makes a click of it, some time later
            expect(page.locator(f"#view-{tab}")).to_be_visible()
            assert fits()
        page.tap("#tab-maps")
        page.tap("[data-map=normals]")
        expect(page.locator("#enlarged")).to_be_visible()
        assert fits()
        for title in ("Distance", "Objects", "Image"):
            page.tap("[data-step='-1']")
            expect(page.locator("#enlarged-title")).to_have_text(title)
        assert page.locator("#enlarged").evaluate("dialog => dialog.scrollWidth === dialog.clientWidth")
        page.tap("#enlarged .frame")
        expect(page.locator("#enlarged .readout dd").nth(2)).to_have_text(re.compile(r" m$"))
        page.tap("[data-close]")
        expect(page.locator("#enlarged")).to_be_hidden()


def test_a_tall_image_fits_into_the_window(server: Server, browser: Browser) -> None:
    tall = encode(Image.open(PHOTO).resize((60, 900)))
    with visit(browser, server.url) as page:
        give(page, {"name": "tall.png", "mimeType": "image/png", "buffer": tall})
        for frame in page.locator("#view-maps .frame").all():
            box = frame.bounding_box()
            assert box is not None
            assert box["height"] < page.evaluate("innerHeight")
            assert box["height"] / box["width"] == pytest.approx(15, rel=0.02)
