"""Which response format an Accept header gets."""

import pytest

from mtcp_serve.encoding import FORMATS
from mtcp_serve.errors import NotAcceptableError
from mtcp_serve.negotiation import choose_format

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
        ("Application/X-NPZ", "npz"),
        ("application/json;q=0.5, application/x-npz", "npz"),
        ("application/json;q=0.5, application/x-npz;q=0.4", "json"),
        ("application/json, application/x-npz", "json"),
        ("application/json;q=0, */*", "npz"),
        ("application/json;q=0.1, */*;q=0.2", "npz"),
        ("image/png, application/x-npz;q=0.001", "npz"),
    ],
)
def test_accept(accept: str | None, format: str) -> None:
    assert choose_format(None, accept) is FORMATS[format]


@pytest.mark.parametrize(
    "accept", ["image/png", "application/json;q=0", "*/*;q=0", "nonsense", "text/*, a/b/c"]
)
def test_nothing_fits(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="application/json, application/x-npz"):
        choose_format(None, accept)


def test_the_parameter_goes_first() -> None:
    assert choose_format("npz", "application/json") is FORMATS["npz"]
