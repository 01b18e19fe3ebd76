"""Metrics for Prometheus, traces, and the log."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from mtcp_serve.clients import TritonClient
from mtcp_serve.server import app as app_module
from mtcp_serve.server.app import create_app
from mtcp_serve.server.logging import configure_logging
from mtcp_serve.server.settings import Settings
from mtcp_serve.server.tracing import Tracing
from tests.mtcp_serve.process import PATIENCE_S, free_port
from tests.mtcp_serve.server.test_bad_input import PNG
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, noise

ROOT = Path(__file__).parents[3]
STAGES = {"queue", "decode", "infer", "encode"}


def samples(client: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_figures(bundle: Path) -> None:
    with TestClient(create_app(Settings(bundle=(bundle,), intra_op_threads=1))) as client:
        for content in (GOOD, GOOD, b"bad"):
            client.post("/predict", content=content, headers=PNG)
        client.post("/predict/batch", files=[("image", GOOD), ("image", GOOD), ("image", b"")])
        client.get("/nothing")
        client.get("/models")
        found = samples(client)
    assert found["mtcp_requests_total", ("POST", "/predict", "200")] == 2
    assert found["mtcp_requests_total", ("POST", "/predict", "400")] == 1
    assert found["mtcp_requests_total", ("GET", "other", "404")] == 1
    assert found["mtcp_errors_total", ("invalid_image",)] == 1
    assert found["mtcp_errors_total", ("empty_image",)] == 1
    for stage in STAGES:
        assert found["mtcp_stage_seconds_count", (stage,)] >= 4
    assert found["mtcp_request_seconds_count", ("/predict",)] == 3
    assert found["mtcp_batch_images_sum", ("tiny",)] == 4
    assert found["mtcp_batch_images_count", ("tiny",)] in (3, 4)
    for gauge in ("mtcp_queue_requests", "mtcp_running_requests", "mtcp_uploads"):
        assert found[gauge, ()] == 0
    assert found["mtcp_ready", ()] == 1
    assert found["process_resident_memory_bytes", ()] > 0


def test_two_applications_count_for_themselves(settings: Settings) -> None:
    with TestClient(create_app(settings)) as one, TestClient(create_app(settings)) as other:
        one.post("/predict", content=GOOD, headers=PNG)
        assert ("mtcp_requests_total", ("POST", "/predict", "200")) in samples(one)
        assert ("mtcp_requests_total", ("POST", "/predict", "200")) not in samples(other)


def test_a_request_is_a_trace_with_a_span_a_stage(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = InMemorySpanExporter()
    monkeypatch.setattr(app_module, "_tracing", lambda: Tracing(spans))
    settings = Settings(bundle=(bundle,), intra_op_threads=1, traces=True, grpc_port=free_port())
    with TestClient(create_app(settings)) as client:
        client.post("/predict", content=GOOD, headers=PNG)
        for probe in ("/health/ready", "/v2/health/ready", "/metrics"):
            client.get(probe)
        with TritonClient(f"127.0.0.1:{settings.grpc_port}") as over_grpc:
            over_grpc.infer(noise(HEIGHT, WIDTH)[None])
    finished: Any = spans.get_finished_spans()
    (root,) = (span for span in finished if span.parent is None)
    assert (root.name, root.attributes["http.response.status_code"]) == ("POST /predict", 200)
    assert root.resource.attributes["service.name"] == "mtcp-serve"
    stages = [span for span in finished if span.parent is not None]
    assert {span.name for span in stages} == STAGES
    for span in stages:
        assert span.parent.span_id == root.context.span_id
        assert root.start_time - 5e6 <= span.start_time <= span.end_time <= root.end_time + 5e6


@contextmanager
def text_log() -> Iterator[None]:
    """Log as ``mtcp-serve serve`` does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("info", "text")
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)


def test_text_log_has_the_request_id(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    with text_log(), TestClient(create_app(settings)) as client:
        client.get("/models", headers={"X-Request-ID": "order-68"})
    line = next(line for line in capsys.readouterr().err.splitlines() if "order-68" in line)
    assert "status=200" in line
    assert "path=/models" in line


def test_text_log_shows_no_variables_of_a_failure(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    with text_log(), TestClient(create_app(settings)) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        service.handle = None  # calling it fails
        response = client.post(
            "/predict", content=GOOD, headers={**PNG, "Authorization": "Bearer a-key-of-somebody"}
        )
    assert response.status_code == 500
    text = capsys.readouterr().err
    assert "TypeError: 'NoneType' object is not callable" in text
    assert "a-key-of-somebody" not in text
    assert "locals" not in text


def test_text_log_has_no_control_characters_of_a_path(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    with text_log(), TestClient(create_app(settings)) as client:
        client.get("/%1b%5b2Jgone")
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "path=/%1B%5B2Jgone" in text


def test_the_dashboard_asks_for_figures_that_exist(client: TestClient) -> None:
    client.post("/predict", content=GOOD, headers=PNG)
    client.post("/predict", content=b"bad", headers=PNG)
    names = {name for name, _ in samples(client)}
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "mtcp-serve.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\b(?:mtcp|process)_\w+", query)}
    assert len(asked) >= 10
    assert asked <= names


NOISY = """
import os, warnings
from mtcp_serve.cli import main
from mtcp_serve.inference import pipeline

read = pipeline._read

def noisy(*arguments):
    os.write(2, b"TIFFReadDirectory: Warning, unknown field.\\n")
    warnings.warn("a warning")
    os.write(2, b"x" * 1_000_000)  # more than a pipe holds: nobody waits until it has been read
    return read(*arguments)

pipeline._read = noisy
main()
"""
"""``mtcp-serve`` with a library that writes to stderr past Python."""


def lines_of_a_noisy_server(bundle: Path, **environment: str) -> list[str]:
    """What it says from its start over an image to its end."""
    serve = ["serve", "--port", "0", "--threads", "1", "--bundle", str(bundle)]
    command = [sys.executable, "-c", NOISY, *serve]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"running on (http://[^ ]+)", line):
                break
        assert found is not None, lines
        answer = httpx.post(f"{found[1]}/predict", content=GOOD, headers=PNG, timeout=PATIENCE_S)
        assert answer.status_code == 200
        process.terminate()
        return lines + process.stderr.readlines()


def test_lines_of_libraries_are_lines_of_the_log(bundle: Path) -> None:
    lines = lines_of_a_noisy_server(bundle, MTCP_LOG_FORMAT="text")
    (line,) = (line for line in lines if "TIFFReadDirectory" in line)
    pattern = r"\d{4}-\S+Z \[warning *\] TIFFReadDirectory: Warning, unknown field\. +\[stderr\]"
    assert re.match(pattern, line), line


def test_with_json_logs_every_line_is_json(bundle: Path) -> None:
    lines = lines_of_a_noisy_server(bundle, MTCP_LOG_FORMAT="json", MTCP_QUEUE="9")
    said = [json.loads(line) for line in lines]
    events = [each["event"] for each in said]
    assert "--threads is called --intra-op-threads now; the old name goes with the next version" in events
    assert "MTCP_QUEUE is called MTCP_QUEUE_SIZE now; the old name goes with the next version" in events
    assert "tiny 7 on cpu: semseg, depth, normals, saliency, parsing" in events
    assert "TIFFReadDirectory: Warning, unknown field." in events
    assert any("a warning" in event for event in events)
    (request,) = (each for each in said if each["event"] == "request")
    assert request["status"] == 200


def test_a_failure_to_start_is_json_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mtcp_serve", "serve", "--log-format", "json", "--bundle", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert f"there is no bundle in {tmp_path}" in json.loads(line)["event"]
    assert json.loads(line)["level"] == "error"
