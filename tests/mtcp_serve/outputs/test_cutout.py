"""The cut-out: opacity is the saliency's, and at soft edges the colours are the subject's own."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

import mtcp_serve
from mtcp_serve.inference.images import decode
from mtcp_serve.kinds import resample
from mtcp_serve.outputs.cutout import cutout, foreground, opacity, over
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, encode, noise

RAW = {"Content-Type": "application/octet-stream"}
RED, BLUE = (220, 40, 30), (20, 60, 200)


def disc(size: int = 96, soft: int = 8) -> NDArray[np.float32]:
    """The opacity of a disc, 1 inside to 0 outside over ``soft`` pixels."""
    down, across = np.mgrid[:size, :size] - (size - 1) / 2
    alpha: NDArray[np.float32] = ((size / 4 - np.hypot(down, across)) / soft + 0.5).clip(0, 1)
    return alpha.astype(np.float32)


def mixed(alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Red where ``alpha`` is 1, blue where it is 0, as a camera mixes them between."""
    share = alpha[..., None]
    pixels: NDArray[np.uint8] = np.rint(share * np.array(RED) + (1 - share) * np.array(BLUE)).astype(np.uint8)
    return pixels


@pytest.mark.parametrize("size", [96, 700])  # the larger one's blurs are made smaller
def test_the_background_is_taken_out_of_soft_edges(size: int) -> None:
    alpha = disc(size)
    photo = mixed(alpha)
    before = np.abs(photo.astype(int) - RED).max(axis=-1)
    everywhere = np.ones(alpha.shape, bool)
    found = foreground(photo, alpha, everywhere).reshape(photo.shape)
    after = np.abs(found - RED).max(axis=-1)
    assert (alpha * before).max() > 40  # what is seen of the error: the opacity times it
    assert (alpha * after).max() < 5
    solid = alpha == 1
    assert np.array_equal(np.rint(found)[solid], photo[solid])
    assert np.array_equal(foreground(photo, alpha, solid), found[solid])


@pytest.mark.parametrize("shape", [(17, 24), (3, 640)])
def test_it_is_the_published_method(shape: tuple[int, int]) -> None:
    """Equations 4 to 7 of the paper in the plainest form, window by window, on 512 pixels at most."""
    (height, width), shrink = shape, max(max(shape) / 512, 1)
    small = round(width / shrink), round(height / shrink)
    pixels, alpha = noise(height, width), np.random.default_rng(1).random(shape, np.float32)

    def sized(values: NDArray[Any], size: tuple[int, int], rule: Image.Resampling) -> NDArray[np.float64]:
        planes = [Image.fromarray(plane).resize(size, rule) for plane in np.moveaxis(values, -1, 0).copy()]
        return np.stack([np.asarray(plane, np.float64) for plane in planes], axis=-1)

    def mean(values: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
        def at(row: int, column: int) -> NDArray[np.float64]:
            top, left = max(row - radius, 0), max(column - radius, 0)
            window: NDArray[np.float64] = values[top : row + radius + 1, left : column + radius + 1]
            return np.asarray(window.mean(axis=(0, 1)))

        return np.array([[at(row, column) for column in range(small[0])] for row in range(small[1])])

    image = sized(pixels.astype(np.float32), small, Image.Resampling.BOX)
    share = sized(alpha[..., None], small, Image.Resampling.BOX)
    own = other = image
    for radius in (round(90 / shrink), round(6 / shrink)):
        blurred = mean(own * share, radius) / mean(share, radius)
        other = mean(other * (1 - share), radius) / mean(1 - share, radius)
        own = (blurred + share * (image - share * blurred - (1 - share) * other)).clip(0, 255)
    own, other = (
        sized(colors.astype(np.float32), (width, height), Image.Resampling.BILINEAR)
        for colors in (blurred, other)
    )
    share = alpha[..., None].astype(np.float64)
    want = (own + share * (pixels - share * own - (1 - share) * other)).clip(0, 255)
    somewhere = alpha > 0.5
    assert foreground(pixels, alpha, somewhere) == pytest.approx(want[somewhere], abs=1e-2)


def test_no_rim_of_the_old_background_is_left_over_a_new_one() -> None:
    """Against what a camera would have seen had the wall been green."""
    alpha = disc()
    probability = alpha * 0.9 + 0.05  # what `opacity` turns into alpha
    assert opacity(probability) == pytest.approx(alpha, abs=1e-6)
    green = (30, 200, 60)
    want = alpha[..., None] * np.array(RED) + (1 - alpha[..., None]) * np.array(green)
    assert np.abs(over(cutout(mixed(alpha), probability), green) - want).max() < 8
    plain = np.dstack([mixed(alpha), np.rint(alpha * 255).astype(np.uint8)])
    assert np.abs(over(plain, green) - want).max() > 40  # it would have had one


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_and_everything(value: float) -> None:
    photo = noise(20, 30)
    cut = cutout(photo, np.full((20, 30), value, np.float32))
    assert np.array_equal(cut, np.dstack([photo * int(value), np.full((20, 30), 255 * int(value), np.uint8)]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 200)])
def test_any_shape(shape: tuple[int, int]) -> None:
    cut = cutout(noise(*shape), np.full(shape, 0.5, np.float32))
    assert cut.shape == (*shape, 4)
    assert (cut[..., 3] == 128).all()


@pytest.mark.parametrize(
    "shape", [(61, 37), (1, 700), (700, 1), (17, 641)]
)  # the last three are made smaller
def test_in_bands_of_rows_it_is_what_it_is_at_once(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, probability = noise(*shape), np.random.default_rng(2).random(shape, np.float32)
    found = []
    for pixels in (1, 3 * shape[1], 2**30):  # a row, three rows, all
        monkeypatch.setattr(resample, "_BAND", pixels)
        cut = cutout(photo, probability)
        found.append((cut, over(cut, RED)))
    alpha = opacity(probability)
    soft = (alpha > 0.01) & (alpha < 1)
    assert np.array_equal(found[-1][0][soft, :3], np.rint(foreground(photo, alpha, soft)))
    for cut, red in found[:2]:
        assert np.array_equal(cut, found[-1][0])
        assert np.array_equal(red, found[-1][1])


def fetch(client: TestClient, query: str, data: bytes = GOOD) -> Image.Image:
    response = client.post(f"/predict?format=cutout&{query}", content=data, headers=RAW)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return Image.open(BytesIO(response.content))


def test_the_server_gives_it_with_a_background_or_without(client: TestClient) -> None:
    """The saliency of the tiny bundle is red / 255."""
    pixels = noise(HEIGHT, WIDTH)
    cut = fetch(client, "")
    alpha = np.asarray(cut)[..., 3]
    assert (
        np.abs(alpha - opacity(np.float32(1 / 255) * pixels[..., 0].astype(np.float32)) * 255).max() <= 0.51
    )
    assert np.array_equal(np.asarray(cut)[alpha == 255, :3], pixels[alpha == 255])
    white = fetch(client, "background=%23ffffff")
    assert white.mode == "RGB"
    assert (np.asarray(white)[alpha == 0] == 255).all()
    large = encode(np.full((60, 90, 3), (255, 10, 10), np.uint8))
    assert np.array_equal(np.asarray(fetch(client, "", large))[30, 40], (255, 10, 10, 255))
    assert fetch(client, "size=model", large).size == (WIDTH, HEIGHT)


def test_of_a_large_jpeg_every_pixel_is_the_files(client: TestClient, bundle: Path) -> None:
    """The network needs less than the file has, so that it is decoded at reduced size for it."""
    stripes = np.zeros((400, 600, 3), np.uint8)
    stripes[..., 0], stripes[:, ::2, 2] = 255, 255
    data = encode(stripes, "JPEG", quality=95, subsampling=0)
    with mtcp_serve.load(bundle, threads=1) as model:
        maps = model.predict(data)
    whole = decode(data)
    there = np.asarray(fetch(client, "", data))
    assert np.array_equal(np.asarray(maps.cutout()), there)
    solid = there[..., 3] == 255
    assert solid.mean() > 0.9
    assert np.array_equal(there[solid, :3], np.asarray(whole.image)[solid])
    assert np.array_equal(np.asarray(maps.overlay("saliency", 0)), np.asarray(whole.image))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("format=cutout&background=red", "background"),
        ("format=cutout&tasks=depth", "needs a map of kind probability"),
        ("format=json&background=%23ffffff", "format json has no background"),
    ],
)
def test_what_it_cannot_do_is_refused(client: TestClient, query: str, reason: str) -> None:
    response = client.post(f"/predict?{query}", content=GOOD, headers=RAW)
    check_error(response, 422, "invalid_parameter")
    assert reason in response.json()["error"]["message"]


def test_a_png_that_accept_asks_for_is_the_map(client: TestClient) -> None:
    response = client.post("/predict?tasks=saliency", content=GOOD, headers={**RAW, "Accept": "image/png"})
    assert Image.open(BytesIO(response.content)).mode == "L"
