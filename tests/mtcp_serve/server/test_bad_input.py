"""Everything wrong that a request can be gets its status and code, and the next good request is served."""

import gzip
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.mtcp_serve.inference.images.build import png_header
from tests.mtcp_serve.support import GOOD, encode, noise

PNG = {"Content-Type": "image/png"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JPEG = encode(noise(64, 64), "JPEG")
OK = (200, "")


def part(name: str, data: bytes = GOOD, filename: str = '; filename="a.png"') -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + data + b"\r\n"


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 8
    return encode(noise(20, 30), "JPEG", exif=exif)


def animated() -> bytes:
    frames = [Image.new("L", (6, 5), level) for level in (0, 90, 200)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def palette_with_alpha() -> bytes:
    image = Image.fromarray(noise(9, 9)).convert("P")
    return encode(image, transparency=bytes(range(256)))


BODIES: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "text": (b"hello", PNG, 400, "invalid_image"),
    "svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        {"Content-Type": "image/svg+xml"},
        400,
        "invalid_image",
    ),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], {"Content-Type": "image/jpeg"}, 400, "invalid_image"),
    "no bytes": (b"", PNG, 400, "empty_image"),
    "no bytes in the field": (part("image", b"") + b"--b--\r\n", FORM, 400, "empty_image"),
    "huge header": (png_header(50_000, 50_000), PNG, 413, "image_too_large"),
    "too many pixels": (png_header(2001, 2000), PNG, 413, "image_too_large"),
    "long side": (png_header(1, 4001), PNG, 413, "image_too_large"),
    "too many bytes": (b"x" * 1_000_001, PNG, 413, "payload_too_large"),
    "too many bytes in the field": (
        part("image", b"x" * 1_000_001) + b"--b--\r\n",
        FORM,
        413,
        "payload_too_large",
    ),
    "far too many bytes in the form": (part("image", b"x" * 1_200_000), FORM, 413, "payload_too_large"),
    "wrong field": (part("photo") + b"--b--\r\n", FORM, 400, "invalid_body"),
    "two images": (part("image") * 2 + b"--b--\r\n", FORM, 400, "invalid_body"),
    "field without a file name": (part("image", GOOD, "") + b"--b--\r\n", FORM, *OK),
    "field without a name": (b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", FORM, 400, "invalid_body"),
    "form without parts": (b"--b--\r\n", FORM, 400, "invalid_body"),
    "form without a boundary": (part("image"), {"Content-Type": "multipart/form-data"}, 400, "invalid_body"),
    "broken form": (b"nothing of the kind", FORM, 400, "invalid_body"),
    "form that ends early": (part("image")[:80], FORM, 400, "invalid_body"),
    "endless header": (b"--b\r\nX: " + b"y" * 70_000, FORM, 400, "invalid_body"),
    "unknown fields": (
        part("x", b"1", "") * 40 + part("image") + b"--b--\r\n",
        FORM,
        422,
        "invalid_parameter",
    ),
    "parameters": (
        part("tasks", b"depth", "") + part("image") + part("size", b"model", "") + b"--b--\r\n",
        FORM,
        *OK,
    ),
    "a parameter twice": (
        part("size", b"model", "") * 2 + part("image") + b"--b--\r\n",
        FORM,
        422,
        "invalid_parameter",
    ),
    "a long parameter": (
        part("tasks", b"d" * 66_000, "") + part("image") + b"--b--\r\n",
        FORM,
        400,
        "invalid_body",
    ),
    "wrong content type": (GOOD, {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
    "form-encoded": (
        GOOD,
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "unsupported_media_type",
    ),
    "no content type": (GOOD, {}, 415, "unsupported_media_type"),
    "compressed": (
        gzip.compress(GOOD),
        {**PNG, "Content-Encoding": "gzip"},
        415,
        "unsupported_media_type",
    ),
    "compressed in name only": (GOOD, {**PNG, "Content-Encoding": "identity"}, *OK),
    "cmyk": (encode(Image.fromarray(noise(9, 9)).convert("CMYK"), "JPEG"), PNG, *OK),
    "16-bit grey": (encode(Image.fromarray(np.full((9, 9), 40_000, np.uint16))), PNG, *OK),
    "palette with alpha": (palette_with_alpha(), PNG, *OK),
    "rotated": (rotated(), PNG, *OK),
    "animated": (animated(), PNG, *OK),
    "one pixel": (encode(noise(1, 1)), PNG, *OK),
}


def check_error(response: Any, status: int, code: str) -> Any:
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "hint"]
    assert body["error"]["code"] == code
    assert all(body["error"].values())
    assert response.headers["x-request-id"]
    return body["error"]


def check_alive(client: TestClient) -> None:
    assert client.post("/predict?tasks=depth", content=GOOD, headers=PNG).status_code == 200


@pytest.mark.parametrize("name", BODIES)
def test_body(client: TestClient, name: str) -> None:
    data, headers, status, code = BODIES[name]
    response = client.post("/predict", content=data, headers=headers)
    if status == 200:
        assert response.status_code == 200, response.text
    else:
        check_error(response, status, code)
    check_alive(client)


@pytest.mark.parametrize(
    ("query", "status", "code", "message"),
    [
        (
            "tasks=depht",
            404,
            "unknown_task",
            "no task 'depht'; it has semseg, depth, normals, saliency, parsing",
        ),
        ("tasks=depth,", 200, "", ""),
        ("tasks=,", 422, "invalid_parameter", "tasks: name at least one task"),
        ("model=other", 404, "unknown_model", "no model 'other' is loaded; there is tiny"),
        ("format=tar", 422, "invalid_parameter", "'tar' is none of json, npz, zip, multipart, png"),
        ("format=png", 422, "invalid_parameter", "format png holds one map, but 5 are asked for"),
        ("format=png&tasks=depth", 200, "", ""),
        ("visualize=perhaps", 422, "invalid_parameter", "visualize: Input should be a valid boolean"),
        ("size=large", 422, "invalid_parameter", "size: Input should be 'input' or 'model'"),
        ("tasks=depth&tasks=semseg", 422, "invalid_parameter", "tasks is given 2 times"),
        ("task=depth", 422, "invalid_parameter", "task: Extra inputs are not permitted"),
    ],
)
def test_query(client: TestClient, query: str, status: int, code: str, message: str) -> None:
    response = client.post(f"/predict?{query}", content=GOOD, headers=PNG)
    if status == 200:
        assert response.status_code == 200
    else:
        assert message in check_error(response, status, code)["message"]
    check_alive(client)


def test_wrong_field_names_the_fields(client: TestClient) -> None:
    response = client.post("/predict", files={"photo": ("a.png", GOOD)})
    assert (
        check_error(response, 400, "invalid_body")["message"]
        == "the form has no field 'image'; its fields: photo"
    )


def test_a_field_with_an_empty_name_is_called_that(client: TestClient) -> None:
    for form in (part(""), part("image") + part("", b"x")):
        response = client.post("/predict", content=form + b"--b--\r\n", headers=FORM)
        error = check_error(response, 400, "invalid_body")
        assert error["message"] == "the form has a field whose name is empty, or that has none"


FIELDS = {"tasks": "depth,semseg", "size": "model", "format": "npz", "visualize": "true"}


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_parameters_may_be_fields_of_the_form(client: TestClient, path: str) -> None:
    """Wherever they stand among the fields, and whatever of them is in the query."""
    image = {"image": ("a.png", encode(noise(40, 60)))}
    want = client.post(path, params=FIELDS, files=image).content
    for names in ((), ("tasks",), ("size", "format"), tuple(FIELDS)):
        query = {name: FIELDS[name] for name in names}
        found = client.post(path, params=query, data=FIELDS, files=image)
        assert found.status_code == 200, found.text
        with np.load(BytesIO(found.content)) as one, np.load(BytesIO(want)) as other:
            assert one.files == other.files
            for member in set(one.files) - {"metadata"}:
                assert np.array_equal(one[member], other[member])


def test_query_and_form_complete_each_other(client: TestClient) -> None:
    """A PNG is one map: only both together say so."""
    found = client.post("/predict?format=png", data={"tasks": "depth"}, files={"image": ("a.png", GOOD)})
    assert (found.status_code, found.headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    ("query", "fields", "status", "code", "message"),
    [
        ({"size": "input"}, {"size": "model"}, 422, "invalid_parameter", "size is 'model' in the form, and"),
        ({}, {"task": "depth"}, 422, "invalid_parameter", "the form has a field 'task'; it may have image, "),
        ({}, {"size": "large"}, 422, "invalid_parameter", "size: Input should be 'input' or 'model'"),
        ({"fov_x": "60"}, {"focal_px": "80"}, 422, "invalid_parameter", "give one of them"),
        ({}, {"tasks": "depht"}, 404, "unknown_task", "no task 'depht'"),
        ({}, {"model": "other"}, 404, "unknown_model", "no model 'other'"),
    ],
)
def test_fields_that_cannot_be_honoured(
    client: TestClient, path: str, query: Any, fields: Any, status: int, code: str, message: str
) -> None:
    response = client.post(path, params=query, data=fields, files={"image": ("a.png", GOOD)})
    assert message in check_error(response, status, code)["message"]
    check_alive(client)


GETS = ["/", "/web/page.js", "/models", "/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"]


@pytest.mark.parametrize("path", [*GETS, "/v2", "/v2/health/ready", "/v2/models/tiny", "/nothing"])
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.content == b""
    assert head.status_code == get.status_code
    changing = {"x-request-id", "content-length"} if path == "/metrics" else {"x-request-id"}
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in get.headers.items() if name not in changing
    }


def test_head_of_what_takes_post(client: TestClient) -> None:
    response = client.head("/predict")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


def test_not_acceptable(client: TestClient) -> None:
    response = client.post("/predict", content=GOOD, headers=PNG | {"Accept": "image/png"})
    assert "application/x-npz" in check_error(response, 406, "not_acceptable")["message"]


def test_unknown_path_and_method(client: TestClient) -> None:
    check_error(client.get("/nothing"), 404, "not_found")
    response = client.get("/predict")
    check_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_body_without_length_is_limited_while_it_streams(client: TestClient) -> None:
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 100_000
            yield b"x" * 100_000

    check_error(client.post("/predict", content=chunks(), headers=PNG), 413, "payload_too_large")
    check_alive(client)
