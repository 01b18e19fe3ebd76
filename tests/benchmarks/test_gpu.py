"""The benchmark for a GPU runs where none is: with the same arguments, and with what fails said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

import benchmarks.gpu
from mtcp_serve.bundle import DEFAULT_BUNDLE


def run(*options: str) -> Any:
    app = typer.Typer()
    app.command()(benchmarks.gpu.main)
    arguments = [str(DEFAULT_BUNDLE), "scenes", "--iterations", "1", "--batches", "1,2", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_on_the_cpu_every_case_that_needs_no_gpu_is_measured(tmp_path: Path) -> None:
    report = run("--device", "cpu", "--precisions", "bf16", "--json", str(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["onnxruntime"]["model.onnx"]["nodes"]["CPUExecutionProvider"]["Conv"] > 0
    for batch in ("batch_1", "batch_2"):
        for place in ("host", "device"):
            assert report["onnxruntime"]["model.onnx"][batch][place]["median_ms"] > 0
        network = report["torch"]["bf16"][batch]
        assert network["eager"]["median_ms"] > 0
        assert network["cuda_graph"] == {"error": "only a GPU has CUDA graphs"}


def test_without_a_gpu_each_part_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = run("--device", "cuda")
    assert report["torch"] == {"error": "PyTorch sees no GPU"}
    assert "CUDAExecutionProvider" in str(report["onnxruntime"]["model.onnx"]["error"])
