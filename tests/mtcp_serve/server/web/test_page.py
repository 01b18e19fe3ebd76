"""The files of the demo page: types, caching, and that nothing else can be had through them."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import mtcp_serve
from mtcp_serve.kinds.colormaps import colormap_names
from tests.mtcp_serve.server.test_bad_input import check_error

WEB = Path(mtcp_serve.__file__).parent / "server" / "web"
FILES = sorted(path.name for path in WEB.iterdir())
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def test_the_page_is_at_the_root(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.content == (WEB / "index.html").read_bytes()
    assert response.headers["content-type"] == TYPES[".html"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_its_type_and_is_asked_for_again_cheaply(client: TestClient, name: str) -> None:
    response = client.get(f"/web/{name}")
    assert response.content == (WEB / name).read_bytes()
    assert response.headers["content-type"] == TYPES[Path(name).suffix]
    assert response.headers["cache-control"] == "no-cache"
    etag = response.headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again = client.get(f"/web/{name}", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(f"/web/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_color_tables_are_those_of_the_gateway(client: TestClient) -> None:
    response = client.get("/web/colormaps.json")
    assert response.headers["content-type"] == "application/json"
    assert response.content == (WEB.parents[1] / "kinds" / "colormaps.json").read_bytes()
    assert ["heat", *response.json()] == list(colormap_names())


def test_two_files_have_two_etags(client: TestClient) -> None:
    assert len({client.get(f"/web/{name}").headers["etag"] for name in FILES}) == len(FILES)


@pytest.mark.parametrize("path", ["/", "/web/page.js"])
def test_head_and_other_methods(client: TestClient, path: str) -> None:
    head = client.head(path)
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(client.get(path).content))
    check_error(client.post(path), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "path",
    [
        "none.js",
        "%2e%2e%2fapp.py",
        "..%2fapp.py",
        "%2fetc%2fpasswd",
        "page.js%00",
        "page.js/",
        "sub/page.js",
        "",
        "%ff",
    ],
)
def test_there_is_nothing_else(client: TestClient, path: str) -> None:
    response = client.get(f"/web/{path}", follow_redirects=False)
    if response.status_code == 307:  # a slash too many: to the file itself
        assert response.headers["location"].endswith("/web/page.js")
    else:
        check_error(response, 404, "not_found")


def test_the_page_loads_only_files_of_its_own_by_relative_addresses() -> None:
    text = "".join((WEB / name).read_text() for name in FILES if not name.endswith(".jpg"))
    addresses = re.findall(r"""(?:src|href|from|import)[= (]+["']([^"']+)["']""", text)
    assert len(addresses) > 30
    for address in addresses:
        name = address.removeprefix("web/").removeprefix("./")
        assert name in FILES or name == "docs"
    outside = set(re.findall(r"https?://[^\s\"'<>)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not outside


def test_nothing_stands_inline_in_the_page() -> None:
    text = (WEB / "index.html").read_text()
    assert re.findall(r"<script[^>]*>", text) == ['<script type="module" src="web/page.js">']
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    scripts = "".join((WEB / name).read_text() for name in FILES if name.endswith(".js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", scripts)
