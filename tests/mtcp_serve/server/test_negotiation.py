"""Which response format an Accept header gets."""

import pytest

from mtcp_serve.errors import InvalidParameterError, NotAcceptableError
from mtcp_serve.outputs.formats import BATCH_FORMATS, FORMATS
from mtcp_serve.server.negotiation import choose_format
from tests.mtcp_serve.support import TASKS

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        (BROWSER, "json"),
        ("application/*", "json"),
        ("application/x-npz", "npz"),
        ("application/zip", "zip"),
        ("multipart/*", "multipart"),
        ("Application/X-NPZ", "npz"),
        ("application/json;q=0.5, application/x-npz", "npz"),
        ("application/json;q=0.5, application/x-npz;q=0.4", "json"),
        ("application/json, application/x-npz", "json"),
        ("application/json;q=0, */*", "npz"),
        ("application/json;q=0.1, */*;q=0.2", "npz"),
        ("application/json;q=0, application/x-npz;q=0, */*;q=0.1", "zip"),
        ("image/png, application/x-npz;q=0.001", "npz"),
    ],
)
def test_accept(accept: str | None, format: str) -> None:
    assert choose_format(None, accept, TASKS[:2]) is FORMATS[format]


@pytest.mark.parametrize(
    "accept", ["image/png", "application/json;q=0", "*/*;q=0", "nonsense", "text/*, a/b/c"]
)
def test_nothing_fits(accept: str) -> None:
    message = r"application/json, application/x-npz, .* \(image/png when one task is named\)"
    with pytest.raises(NotAcceptableError, match=message):
        choose_format(None, accept, TASKS[:2])


@pytest.mark.parametrize("accept", ["image/png", "image/*", "image/png, application/json;q=0.9"])
def test_png_fits_one_map(accept: str) -> None:
    assert choose_format(None, accept, TASKS[:1]) is FORMATS["png"]
    assert choose_format(None, "*/*", TASKS[:1]) is FORMATS["json"]
    with pytest.raises(NotAcceptableError, match=r"there are application/json, .*mixed$"):
        choose_format(None, "image/png", TASKS[:1], BATCH_FORMATS)


def test_the_parameter_goes_first() -> None:
    assert choose_format("npz", "application/json", TASKS[:2]) is FORMATS["npz"]
    assert choose_format("png", "application/json", TASKS[:1]) is FORMATS["png"]
    with pytest.raises(InvalidParameterError, match="png holds one map, but 2 are asked for"):
        choose_format("png", "image/png", TASKS[:2])
