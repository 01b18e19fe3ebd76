"""What several tests of the command line are given."""

from pathlib import Path

import pytest

from tests.mtcp_serve.support import GOOD


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    path.write_bytes(GOOD)
    return path
