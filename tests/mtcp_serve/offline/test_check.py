"""``mtcp-serve check``: each way in which a bundle can be wrong is found, named, and ends with status 1."""

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import FileEntry, Manifest
from mtcp_serve.bundle.onnx_nodes import read_graph
from mtcp_serve.cli import cli
from mtcp_serve.errors import BundleMismatchError
from mtcp_serve.offline.check import Row, check_bundle, drawing
from tests.mtcp_serve.confident import CONFIDENT_GRAPH, CONFIDENT_TASKS, make_confident_bundle
from tests.mtcp_serve.support import GOOD, GRAPH, HEIGHT, TASKS, WIDTH, make_bundle, put_weights_apart

SUBGRAPH = """
<ir_version: 10, opset_import: ["": 18]>
hidden (float[4] x) => (float[4] y)
<int64 last = {0}, int64 rounds = {2}, bool yes = {1}>
{
    y = Loop (rounds, yes, x) <body = turn (int64 i, bool go, float[4] state) => (bool on, float[4] next) {
        on = Identity (go)
        next = CumSum (state, last)
    }>
}
"""
"""CumSum where a reader that looks only at the top of the graph does not see it."""


def rows(bundle: Path, photo: bytes | None = None) -> dict[str, Row]:
    return {row.check: row for row in check_bundle(bundle, photo, threads=1)}


def failed(bundle: Path) -> dict[str, str]:
    return {name: row.detail for name, row in rows(bundle).items() if row.status == "failed"}


def run(*arguments: object) -> Result:
    environment = {"COLUMNS": "300"}
    return CliRunner().invoke(cli, ["check", *map(str, arguments)], env=environment)


def with_nodes(folder: Path, text: str, opset: int = 18) -> Path:
    """A bundle whose second graph, ``model_fp16.onnx``, is ``text``."""
    bundle = make_bundle(folder)
    path = bundle / "model_fp16.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    manifest = Manifest.load(bundle)
    files = {**manifest.files, path.name: FileEntry.of(path, opset)}
    manifest.model_copy(update={"files": files}).save(bundle)
    return bundle


def grid_sample(opset: int, mode: str) -> str:
    return f"""
<ir_version: 10, opset_import: ["": {opset}]>
sampling (float[1, 1, 4, 4] x, float[1, 4, 4, 2] grid) => (float[1, 1, 4, 4] y)
{{ y = GridSample <align_corners = 0{mode}> (x, grid) }}
"""


def test_a_good_bundle_passes(bundle: Path) -> None:
    found = rows(bundle, GOOD)
    maps = [f"map {task.name}" for task in TASKS]
    assert list(found) == ["manifest", "files", "model.onnx opset", "model.onnx nodes", "graph", *maps]
    assert {row.status for row in found.values()} == {"ok"}
    assert found["map semseg"].detail == "3 classes: dark, medium, bright"
    assert rows(bundle)["map depth"].status == "ok"


def test_the_shipped_bundle_passes() -> None:
    result = run(DEFAULT_BUNDLE, "--intra-op-threads", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.count(" ok ") == 5 + len(Manifest.load(DEFAULT_BUNDLE).outputs)
    assert "opset 18" in result.stdout


def test_a_broken_manifest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    text = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**text, "schema": 2}))
    assert "has schema 2" in failed(bundle)["manifest"]
    result = run(bundle)
    assert result.exit_code == 1
    assert result.stdout.count("not run") == 3


def test_a_changed_and_a_missing_file(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert "SHA-256" in failed(bundle)["files"]
    assert rows(bundle)["graph"].status == rows(bundle)["maps"].status == "not run"
    (bundle / "model.onnx").unlink()
    assert set(failed(bundle)) == {"files", "model.onnx opset", "model.onnx nodes"}


def test_weights_in_a_file_that_is_not_listed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    put_weights_apart(bundle, "model.onnx.data", listed=False)
    assert "model.onnx.data, which manifest.json does not list" in failed(bundle)["files"]
    assert rows(bundle)["graph"].status == rows(bundle)["maps"].status == "not run"
    put_weights_apart(make_bundle(bundle), "model.onnx.data")
    assert not failed(bundle)


def test_a_graph_that_is_not_the_manifests(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tasks=TASKS[:-1])
    assert "the manifest does not match the graph" in failed(bundle)["graph"]
    assert rows(bundle)["maps"].status == "not run"


def test_an_opset_that_is_not_the_manifests(tmp_path: Path) -> None:
    bundle = with_nodes(tmp_path / "bundle", grid_sample(18, ', mode = "bilinear"'), opset=17)
    assert failed(bundle) == {
        "model_fp16.onnx opset": "the manifest says model_fp16.onnx has opset 17, the graph has 18"
    }


def test_a_file_that_is_no_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (b"\xff" * 100, b""):
        path.write_bytes(content)
        with pytest.raises(BundleMismatchError, match=r"model\.onnx"):
            read_graph(path)


@pytest.mark.parametrize(
    ("text", "opset", "message"),
    [
        (grid_sample(20, ', mode = "linear"'), 20, "GridSample of mode linear"),
        (grid_sample(20, ""), 20, "GridSample of mode linear"),
        (SUBGRAPH, 18, "CumSum"),
    ],
    ids=["linear", "linear by default", "CumSum in a loop"],
)
def test_nodes_that_tensorrt_gets_wrong(tmp_path: Path, text: str, opset: int, message: str) -> None:
    faults = failed(with_nodes(tmp_path / "bundle", text, opset))
    assert set(faults) == {"model_fp16.onnx nodes"}
    assert message in faults["model_fp16.onnx nodes"]


@pytest.mark.parametrize("mode", ["", ', mode = "bilinear"', ', mode = "nearest"'])
def test_other_sampling_is_let_be(tmp_path: Path, mode: str) -> None:
    assert not failed(with_nodes(tmp_path / "bundle", grid_sample(18, mode)))


def test_confidences_are_checked_too(tmp_path: Path) -> None:
    folder = make_confident_bundle(tmp_path / "good")
    assert rows(folder)["map semseg_confidence"].status == "ok"
    graph = CONFIDENT_GRAPH.replace("how_sure = Div (blue, whole)", "how_sure = Div (blue, low)")
    faults = failed(make_bundle(tmp_path / "bad", graph, CONFIDENT_TASKS))
    assert set(faults) == {"map depth_confidence"}
    assert "the manifest says 0 to 1" in faults["map depth_confidence"]


@pytest.mark.parametrize(
    ("old", "new", "row", "message"),
    [
        ("per_metre = {25.5}", "per_metre = {2.55}", "map depth", "the manifest says 0.1 to 10"),
        ("per_metre = {25.5}", "per_metre = {0}", "map depth", "not finite"),
        ("tiny_length = {0.001}", "tiny_length = {9}", "map normals", "lengths from"),
        ("whole = {255}", "whole = {100}", "map saliency", "the manifest says 0 to 1"),
        ("Add (low_step, high_step)", "Mul (ten, low_step)", "map semseg", "class ids"),
    ],
    ids=["too far", "infinite", "not unit length", "no probability", "unnamed class"],
)
def test_maps_that_cannot_be(tmp_path: Path, old: str, new: str, row: str, message: str) -> None:
    assert old in GRAPH
    graph = GRAPH.replace(old, new).replace("float low =", "uint8 ten = {10}, float low =")
    faults = failed(make_bundle(tmp_path / "bundle", graph))
    assert set(faults) == {row}
    assert message in faults[row]


def test_what_cannot_be_checked(bundle: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "missing").exit_code == 2
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    result = run(bundle, "--image", bad)
    assert result.exit_code == 2
    assert "not an image" in result.stderr
    photo = tmp_path / "photo.png"
    photo.write_bytes(GOOD)
    result = run(bundle, "--image", photo, "--intra-op-threads", 1)
    assert result.exit_code == 0
    assert "3 classes" in result.stdout


@pytest.mark.parametrize("folder", [DEFAULT_BUNDLE, None], ids=["shipped", "tiny"])
def test_nodes_are_those_that_the_onnx_package_reads(bundle: Path, folder: Path | None) -> None:
    path = (folder or bundle) / "model.onnx"
    model = onnx.load(path)

    def walk(graph: onnx.GraphProto) -> list[tuple[str, str]]:
        found = []
        for node in graph.node:
            found.append((node.name, node.op_type))
            for attribute in node.attribute:
                for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                    found += walk(inner)
        return found

    graph = read_graph(path)
    assert [(node.name, node.op_type) for node in graph.nodes] == walk(model.graph)
    assert graph.opset == model.opset_import[0].version
    modes = [node.strings["mode"] for node in graph.nodes if node.op_type == "GridSample"]
    requested = [
        attribute.s.decode()
        for node in model.graph.node
        if node.op_type == "GridSample"
        for attribute in node.attribute
        if attribute.name == "mode"
    ]
    assert modes == requested


def test_weights_apart_are_found_wherever_a_model_has_them(tmp_path: Path) -> None:
    """Of the graph and of loops in it, dense and sparse, in attributes of nodes and of functions."""
    names = iter("abcdefgh")

    def apart() -> onnx.TensorProto:
        tensor = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "w")
        onnx.external_data_helper.set_external_data(tensor, f"./{next(names)}")
        tensor.ClearField("raw_data")
        return tensor

    def sparse() -> onnx.SparseTensorProto:
        return onnx.helper.make_sparse_tensor(apart(), apart(), [1])

    def node(operator: str, name: str, value: object) -> onnx.NodeProto:
        made = onnx.helper.make_node(operator, [], ["y"])
        made.attribute.append(onnx.helper.make_attribute(name, value))
        return made

    body = onnx.helper.make_graph([node("Constant", "value", apart())], "body", [], [], [apart()])
    nodes = [node("Loop", "body", body), node("Constant", "sparse_value", sparse())]
    inside = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "inside")
    graph = onnx.helper.make_graph(nodes, "graph", [], [], [inside, apart()])
    graph.sparse_initializer.append(sparse())
    opsets = [onnx.helper.make_opsetid("", 18)]
    function = onnx.helper.make_function("own", "f", [], ["y"], [node("Constant", "value", apart())], opsets)
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[function])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert next(names, None) is None
    assert sorted(read_graph(tmp_path / "model.onnx").data_files) == list("abcdefgh")


def test_neither_onnx_nor_torch_is_needed(bundle: Path) -> None:
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['torch'] = None\n"
        "from pathlib import Path; from mtcp_serve.offline.check import check_bundle\n"
        "assert {row.status for row in check_bundle(Path(sys.argv[1]), threads=1)} == {'ok'}"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle)], check=True)


def test_the_drawing_is_always_the_same_and_no_green_one() -> None:
    with Image.open(BytesIO(drawing())) as image, Image.open(BytesIO(drawing())) as again:
        assert image.tobytes() == again.tobytes()
        assert image.size == (320, 240)
        assert min(image.size) > max(HEIGHT, WIDTH)
