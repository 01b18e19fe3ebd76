"""The pictures of the documents and what makes them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

import mtcp_serve
from docs.outputs import CELL, GROUND, TITLES, checkers, from_the_side, row, sheet
from tests.mtcp_serve.support import make_bundle, noise

DOCS = Path(__file__).parent.parent / "docs"


def test_a_row_has_a_picture_under_each_title(tmp_path: Path) -> None:
    image = Image.fromarray(noise(60, 80))
    with mtcp_serve.load(make_bundle(tmp_path / "tiny")) as model:
        prediction = model.predict(image)
    pictures = row(prediction, image)
    assert len(pictures) == len(TITLES)
    assert sheet([pictures, pictures]).width > len(TITLES) * CELL[0]
    seen = np.asarray(from_the_side(prediction, (200, 150)))
    assert seen.shape == (150, 200, 3)
    assert 0.2 < (seen != GROUND).any(-1).mean() < 1  # the scene, and some of the ground around it


def test_the_checkerboard_alternates() -> None:
    board = np.asarray(checkers((40, 20)))
    assert board.shape == (20, 40, 3)
    assert (board[0, 0] != board[0, 10]).all()
    assert (board[0, 0] == board[10, 10]).all()


def test_the_screencast_goes_on_for_ever_and_is_small() -> None:
    path = DOCS / "page.webp"
    with Image.open(path) as cast:
        assert sum(1 for _ in ImageSequence.Iterator(cast)) > 50
        assert cast.info["loop"] == 0
    assert path.stat().st_size < 3_000_000
