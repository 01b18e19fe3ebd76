"""The engines are compared on what they answer and how fast they are."""

import json
import subprocess
import sys
from pathlib import Path

from mtcp_serve.engines.openvino import bf16_problem
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, encode, make_bundle, noise


def test_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encode(noise(HEIGHT, WIDTH)))
    bundle = make_bundle(tmp_path / "tiny")
    out = tmp_path / "report.json"
    options = ["--bundle", str(bundle), "--rounds", "1", "--calls", "1", "--json", str(out)]
    command = [sys.executable, "-m", "benchmarks.engines", str(tmp_path / "photo.png"), *options]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report = json.loads(out.read_text())
    names = {"onnxruntime", "openvino, float32"}
    if bf16_problem() is None:
        names.add("openvino, bfloat16")
    else:
        assert "bfloat16" in report["left_out"]["openvino, bfloat16"]
    assert set(report["engines"]) == names
    for name, row in report["engines"].items():
        assert min(row[figure] for figure in ("alone_ms", "together_ms", "one_stream_ms", "load_s")) > 0
        assert set(row["agreement"]) == {task.name for task in TASKS}
        if name == "onnxruntime":
            assert row["agreement"]["semseg"] == 1
            assert row["agreement"]["depth"] == 0
        assert name in text
