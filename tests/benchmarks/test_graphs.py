"""Two graphs side by side: nodes, time and differences of their maps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import parser
from PIL import Image

from benchmarks.graphs import main

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


@pytest.mark.parametrize(
    ("old", "new", "image", "message"),
    [
        ("good.onnx", "text.onnx", None, "text.onnx is no ONNX graph that ONNX Runtime runs: "),
        ("empty.onnx", "good.onnx", None, "empty.onnx is no"),
        ("good.onnx", "other.onnx", None, "other.onnx is not exported by this project: it takes [('pix"),
        ("good.onnx", "fewer.onnx", None, "the graphs give different maps: [('depth', 'tensor(float)'), "),
        ("good.onnx", "good.onnx", "text.onnx", "text.onnx cannot be read as an image: "),
    ],
)
def test_what_is_no_graph_or_image_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, image: str | None, message: str
) -> None:
    text = TEXT.replace("{STEP}", "{2}").replace("{OFFSET}", "{0.0}")
    fewer = text.replace(", float[N, 4, 6, 3] depth", "")
    for name, content in (("good", text), ("fewer", fewer), ("other", text.replace("image", "pixels"))):
        onnx.save(parser.parse_model(content), tmp_path / f"{name}.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(typer.Exit) as ended:
        main(tmp_path / old, tmp_path / new, [tmp_path / image] if image else None, rounds=1)
    assert ended.value.exit_code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {tmp_path}") or "different maps" in message
    assert message in said.err
    assert said.err.count("\n") == 1
