"""The bundle contract: what is written is read back, and nothing that disagrees is served."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mtcp_serve.bundle.manifest import (
    SCHEMA_VERSION,
    Confidence,
    DepthTask,
    FileEntry,
    GraphTensor,
    InputSpec,
    LabelsTask,
    Manifest,
    NormalsTask,
    ProbabilityTask,
)
from mtcp_serve.errors import BundleMismatchError, ManifestError

ENTRY = FileEntry(sha256="0" * 64, opset=18)
SEMSEG = LabelsTask(name="semseg", dataset="two", labels=("a", "b"), palette=("#000000", "#ffffff"))
DEPTH = DepthTask(name="depth", range=(0.1, 10.0))


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": "lite",
        "version": "1",
        "input": InputSpec(height=6, width=8),
        "tasks": (
            SEMSEG,
            DEPTH,
            NormalsTask(name="normals", frame="x right"),
            ProbabilityTask(name="saliency"),
        ),
        "files": {"model.onnx": ENTRY},
    }
    return Manifest(**fields | changes)


def tensor(name: str, dtype: str, *shape: int | str | None) -> GraphTensor:
    return GraphTensor(name, dtype, shape)


def graph_inputs() -> list[GraphTensor]:
    return [tensor("image", "uint8", "batch", 6, 8, 3)]


def graph_outputs() -> list[GraphTensor]:
    return [
        tensor("semseg", "uint8", "batch", 6, 8),
        tensor("depth", "float32", "batch", 6, 8),
        tensor("normals", "float32", "batch", 6, 8, 3),
        tensor("saliency", "float32", "batch", None, "width"),
    ]


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    original = manifest(parameters=5, gmacs=0.25, license="MIT", description="small")
    assert original.save(tmp_path) == tmp_path / "manifest.json"
    assert Manifest.load(tmp_path) == original
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert json.loads((tmp_path / "manifest.json").read_text())["schema"] == SCHEMA_VERSION


def test_output_tensor_is_the_task_name_unless_given() -> None:
    assert DEPTH.output == "depth"
    assert DepthTask(name="depth", output="metres", range=(0, 1)).output == "metres"


def test_confidences_are_outputs_beside_the_tasks(tmp_path: Path) -> None:
    sure = Confidence(output="how_sure", height=3, width=4)
    own = Confidence(output="depth_confidence", height=6, width=8, criterion="within a metre")
    found = manifest(
        tasks=(
            SEMSEG.model_copy(update={"confidence": sure}),
            DEPTH.model_copy(update={"confidence": own}),
            ProbabilityTask(name="saliency"),
        )
    )
    found.save(tmp_path)
    assert Manifest.load(tmp_path) == found
    assert [task.output for task in found.outputs] == [
        "semseg", "depth", "saliency", "how_sure", "depth_confidence",
    ]  # fmt: skip
    first, second = found.confidences
    assert (first.name, second.name) == ("semseg_confidence", "depth_confidence")
    assert (first.words, second.words) == ("the label is the true one", "within a metre")
    outputs = [
        tensor("semseg", "uint8", "batch", 6, 8),
        tensor("depth", "float32", "batch", 6, 8),
        tensor("saliency", "float32", "batch", 6, 8),
        tensor("how_sure", "float32", "batch", 3, 4),
        tensor("depth_confidence", "float32", "batch", 6, 8),
    ]
    found.check_graph(graph_inputs(), outputs)
    with pytest.raises(BundleMismatchError, match=r"'how_sure': manifest shape .*3, 4.*graph shape .*6, 8"):
        found.check_graph(
            graph_inputs(), [*outputs[:3], tensor("how_sure", "float32", "batch", 6, 8), outputs[4]]
        )
    with pytest.raises(BundleMismatchError, match="graph outputs are"):
        found.check_graph(graph_inputs(), outputs[:4])


def test_a_confidence_takes_no_name_of_a_task() -> None:
    sure = Confidence(output="how_sure", height=3, width=4)
    semseg = SEMSEG.model_copy(update={"confidence": sure})
    with pytest.raises(ValidationError, match="task names must differ"):
        manifest(tasks=(semseg, ProbabilityTask(name="semseg_confidence")))
    with pytest.raises(ValidationError, match="task outputs must differ"):
        manifest(tasks=(semseg, ProbabilityTask(name="other", output="how_sure")))


def test_without_confidences_the_manifest_says_nothing_of_them() -> None:
    assert "confidence" not in manifest().model_dump_json(by_alias=True, exclude_none=True)
    assert manifest().outputs == manifest().tasks


def test_lists_are_taken_for_tuples() -> None:
    labels: Any = ["a", "b"]
    assert LabelsTask(name="x", dataset="d", labels=labels, palette=SEMSEG.palette).labels == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has schema None, but this mtcp-serve reads schema 1"),
        ('{"schema": 2}', "has schema 2, but this mtcp-serve reads schema 1"),
        ('{"schema": true}', "has schema True"),
        ('{"schema": 1, "name": "x"}', "version: Field required"),
    ],
)
def test_load_names_the_file_and_the_fault(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match=message) as caught:
        Manifest.load(tmp_path)
    assert str(tmp_path / "manifest.json") in str(caught.value)


@pytest.mark.parametrize("fov", ["5e-324", "0.0009", "0", "-60", "179.5", "1e400", "NaN"])
def test_a_field_of_view_that_no_camera_has_is_refused(tmp_path: Path, fov: str) -> None:
    wide = DepthTask(name="depth", range=(0.1, 10.0), assumed_fov=90.0)
    path = manifest(tasks=(SEMSEG, wide)).save(tmp_path)
    assert Manifest.load(tmp_path).tasks[1] == wide
    path.write_text(path.read_text().replace('"assumed_fov": 90.0', f'"assumed_fov": {fov}'))
    value = re.escape(str(float(fov)))
    with pytest.raises(ManifestError, match=f"assumed_fov is {value}; it is in degrees, from 0.001 to 179"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("fov", [0.001, 60, 179.0])
def test_any_camera_may_be_assumed(tmp_path: Path, fov: float) -> None:
    manifest(tasks=(DepthTask(name="depth", range=(0.1, 10.0), assumed_fov=fov),)).save(tmp_path)
    (task,) = Manifest.load(tmp_path).tasks
    assert isinstance(task, DepthTask)
    assert task.assumed_fov == fov


def test_load_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("key", ["name", "version", "input", "tasks", "files"])
def test_every_required_key_is_required(key: str) -> None:
    data = json.loads(manifest().model_dump_json(by_alias=True, exclude_none=True))
    del data[key]
    with pytest.raises(ValidationError):
        Manifest.model_validate_json(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "Extra inputs"),
        ({"name": "../up"}, "pattern"),
        ({"files": {"other.onnx": ENTRY}}, "no entry for model.onnx"),
        ({"files": {"model.onnx": ENTRY, "../up": ENTRY}}, "pattern"),
        ({"tasks": ()}, "at least 1"),
        ({"tasks": (SEMSEG, SEMSEG)}, "task names must differ"),
        ({"tasks": (SEMSEG, ProbabilityTask(name="other", output="semseg"))}, "task outputs must differ"),
        ({"tasks": (ProbabilityTask(name="metadata"),)}, "responses use that name"),
        ({"input": {"height": "6", "width": 8}}, "valid integer"),
    ],
)
def test_wrong_manifests_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        manifest(**change)


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        (
            LabelsTask,
            {"dataset": "d", "labels": ("a", "b"), "palette": ("#000000",)},
            "2 labels but 1 palette",
        ),
        (LabelsTask, {"dataset": "d", "labels": ("a", "b"), "palette": ("red", "blue")}, "pattern"),
        (DepthTask, {"range": (1.0, 1.0)}, "min < max"),
        (DepthTask, {"range": (0.0, float("nan"))}, "min < max"),
        (DepthTask, {"range": (0.0, 1.0), "metric": False}, "metric is False but unit is 'm'"),
        (ProbabilityTask, {"dtype": "int64"}, "Input should be"),
    ],
)
def test_wrong_tasks_are_refused(task: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        task(name="x", **fields)


def test_a_matching_graph_is_accepted() -> None:
    manifest().check_graph(graph_inputs(), graph_outputs())


@pytest.mark.parametrize(
    ("side", "index", "change", "messages"),
    [
        ("in", 0, tensor("pixels", "uint8", "b", 6, 8, 3), ["inputs are ['image']", "['pixels']"]),
        (
            "in",
            0,
            tensor("image", "float32", "b", 6, 8, 3),
            ["type uint8", "type float32"],
        ),
        ("in", 0, tensor("image", "uint8", 4, 6, 8, 3), ["['batch', 6, 8, 3]", "[4, 6, 8, 3]"]),
        ("out", 0, tensor("semseg", "int64", "b", 6, 8), ["uint8", "int64"]),
        ("out", 1, tensor("depth", "float32", "b", 1, 6, 8), ["['batch', 6, 8]", "['b', 1, 6, 8]"]),
        ("out", 2, tensor("normals", "float32", "b", 6, 8, 4), ["['batch', 6, 8, 3]", "8, 4]"]),
        ("out", 3, tensor("sal", "float32", "b", 6, 8), ["'saliency'", "'sal'"]),
    ],
)
def test_a_graph_mismatch_names_both_sides(
    side: str, index: int, change: GraphTensor, messages: list[str]
) -> None:
    inputs, outputs = graph_inputs(), graph_outputs()
    (inputs if side == "in" else outputs)[index] = change
    with pytest.raises(BundleMismatchError) as caught:
        manifest().check_graph(inputs, outputs)
    for message in messages:
        assert message in str(caught.value)


def test_every_mismatch_is_reported_at_once() -> None:
    outputs = graph_outputs()
    outputs[0] = tensor("semseg", "int64", "batch", 6, 8)
    outputs[1] = tensor("depth", "float32", "b", 1, 1)
    with pytest.raises(BundleMismatchError, match=r"'semseg'.*'depth'"):
        manifest().check_graph(graph_inputs(), outputs)
