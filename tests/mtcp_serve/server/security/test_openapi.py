"""The OpenAPI document against a real server: schemathesis finds no 5xx and nothing undocumented."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, Server
from tests.mtcp_serve.support import GOOD, encode, noise

PATIENCE_S = 60  # else 10 s; a busy machine is no fault
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PHOTOS = st.sampled_from([GOOD, encode(noise(5, 7), "JPEG"), GOOD[:100]]) | st.binary(max_size=200)
schemathesis.openapi.media_type("image/*", PHOTOS)
schemathesis.openapi.media_type("application/octet-stream", PHOTOS)


@pytest.fixture(scope="module")
def api(bundle: Path) -> Iterator[schemathesis.BaseSchema]:
    server = Server(bundle)
    try:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json", timeout=PATIENCE_S)
    finally:
        code = server.stop()
    assert code in CLEAN
    assert "Traceback" not in "".join(server.log)


CASES = [
    (method, path, mode)
    for path, methods in create_app(Settings()).openapi()["paths"].items()
    for method, operation in methods.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.get("parameters") or "requestBody" in operation
]
"""Each operation asked rightly, and wrongly where there is something to get wrong."""


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_every_answer_is_documented(
    api: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    operation = api[path][method]
    seen = set()

    @hypothesis.settings(
        max_examples=25, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode), st.booleans())
    def check(case: Any, known: bool) -> None:
        if known and "{name}" in path:
            case.path_parameters["name"] = "tiny"
        seen.add(case.call_and_validate(checks=CHECKS, timeout=PATIENCE_S).status_code)

    check()
    assert mode is GenerationMode.NEGATIVE or (400 if path.endswith("/infer") else 200) in seen
