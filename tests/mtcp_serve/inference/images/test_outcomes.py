"""The table of modes in `docs/images.md` is what happens, and no pixel is another."""

from pathlib import Path

import pytest

from tests.mtcp_serve.corpus import corpus
from tests.mtcp_serve.inference.images.outcomes import table

PAGE = Path(__file__).parents[4] / "docs" / "images.md"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_the_table_of_modes_is_what_happens() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


def test_the_page_counts_the_corpus() -> None:
    expected = [status for _, _, (status, _) in corpus()]
    counts = [len(expected), *(expected.count(status) for status in (200, 400, 413, 0))]
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert (
        "Of the {} odd and broken files that a test sends to a server {} must be read".format(*counts) in text
    )
    assert "{} be 400 and {} be 413; {} ".format(*counts[2:]) in text
