"""Two graphs side by side: nodes, time and differences of their maps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import parser
from PIL import Image

TEXT = """
<ir_version: 9, opset_import: ["" : 18]>
maps (uint8[N, 4, 6, 3] image) => (uint8[N, 4, 6, 3] labels, float[N, 4, 6, 3] depth)
<uint8 step = {STEP}, float offset = {OFFSET}>
{
    labels = Div (image, step)
    values = Cast <to = 1> (image)
    depth = Add (values, offset)
}
"""


def test_differences_are_counted_and_measured(tmp_path: Path) -> None:
    for name, step, offset in (("old", 2, 0.0), ("new", 3, 0.5)):
        text = TEXT.replace("{STEP}", f"{{{step}}}").replace("{OFFSET}", f"{{{offset}}}")
        onnx.save(parser.parse_model(text), tmp_path / f"{name}.onnx")
    values = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(values).save(tmp_path / "image.png")
    command = [sys.executable, "-m", "benchmarks.graphs", *("old.onnx", "new.onnx", "image.png")]
    ran = subprocess.run(
        [*command[:3], *(str(tmp_path / name) for name in command[3:]), "--rounds", "2"],
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(ran.stdout)
    assert report["nodes"] == [3, 3]
    assert report["images"] == 1
    assert report["largest_difference"] == {
        "labels": float((values // 2 != values // 3).sum()),
        "depth": 0.5,
    }
    assert report["ratio"] > 0
