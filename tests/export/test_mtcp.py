"""The real network's modules in the exported graph."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from export.bundle_writer import BundleOptions, write_bundle
from export.deployment_module import DeploymentGraph
from export.errors import ParityError
from export.onnx.convert import Converted
from export.parity import check_parity
from export.validation_images import RgbImage
from mtcp_serve.offline.check import check_bundle
from tests.export.networks import HEIGHT, WIDTH
from training.model import MTCP
from training.model.confidence import ConfidenceHeads


def test_it_agrees_with_pytorch_at_every_batch_size(
    mtcp: DeploymentGraph, deployed: Converted, images: dict[str, RgbImage]
) -> None:
    check_parity(ort.InferenceSession(deployed.model.SerializeToString()), mtcp, images)


def test_confidences_are_outputs_beside_the_maps(
    mtcp: DeploymentGraph, deployed: Converted, images: dict[str, RgbImage]
) -> None:
    session = ort.InferenceSession(deployed.model.SerializeToString())
    stack = np.stack(list(images.values()))
    names = [output.name for output in session.get_outputs()]
    assert names == ["semseg", "depth", "semseg_confidence", "depth_confidence"] == list(mtcp.outputs)
    found = dict(zip(names, session.run(names, {"image": stack}), strict=True))
    with torch.inference_mode():
        predictions = mtcp.network(torch.from_numpy(stack).movedim(-1, 1))
    for name, logits in predictions.confidence.items():
        values = found[f"{name}_confidence"]
        assert values.shape == (len(stack), HEIGHT // 4, WIDTH // 4)
        np.testing.assert_allclose(values, logits[:, 0].sigmoid().numpy(), rtol=1e-4)
        assert values.std() > 1e-3


def test_the_manifest_names_them(
    mtcp: DeploymentGraph,
    deployed: Converted,
    images: dict[str, RgbImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("export.bundle_writer.convert", lambda graph: deployed)
    bundle = write_bundle(mtcp, images, tmp_path / "bundle", BundleOptions("mtcp", "1"))
    assert [(sure.name, sure.output, sure.height, sure.width) for sure in bundle.manifest.confidences] == [
        ("semseg_confidence", "semseg_confidence", HEIGHT // 4, WIDTH // 4),
        ("depth_confidence", "depth_confidence", HEIGHT // 4, WIDTH // 4),
    ]
    parity = bundle.parity()["tasks"]["depth_confidence"]
    assert parity["batch_3"]["relative_error_p99"] <= 1e-3
    assert {row.check: row.status for row in check_bundle(bundle.folder)}["map depth_confidence"] == "ok"
    spoiled = copy.deepcopy(deployed)
    for tensor in spoiled.model.graph.initializer:
        if tensor.name.startswith("network.branches.confidence.output"):
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values * 1.1).astype(values.dtype), tensor.name))
    monkeypatch.setattr("export.bundle_writer.convert", lambda graph: spoiled)
    with pytest.raises(ParityError) as caught:
        write_bundle(mtcp, images, tmp_path / "bundle", BundleOptions("mtcp", "1"))
    assert caught.value.faults.keys() == {"semseg_confidence", "depth_confidence"}


def test_a_network_may_be_sure_of_some_tasks_only(mtcp: DeploymentGraph) -> None:
    network = copy.deepcopy(mtcp.network)
    assert isinstance(network, MTCP)
    width = network.config.decoder.channels
    network.branches.confidence = ConfidenceHeads(width, network.tasks, network.tasks[1:])
    graph = DeploymentGraph(network, network.tasks, HEIGHT, WIDTH)
    assert [task.name for task in graph.confident] == ["depth"]
    assert [*graph.outputs] == [*graph(graph.example(1))] == ["semseg", "depth", "depth_confidence"]


def test_nothing_large_is_put_together_or_taken_apart(deployed: Converted) -> None:
    """Copies of maps finer than the predictions cost a CPU as much as arithmetic, OpenVINO far more."""
    inferred = onnx.shape_inference.infer_shapes(deployed.model).graph
    shapes = {
        entry.name: [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
        for entry in inferred.value_info
    }
    copied = {
        name: shapes[name]
        for node in inferred.node
        if node.op_type in {"Concat", "Slice", "Split"}
        for name in (*node.input, *node.output)
        if len(shapes.get(name, [])) == 4
    }
    large = [
        shape
        for shape in copied.values()
        if shape[2] >= HEIGHT // 2 and shape[3] >= WIDTH // 2 and shape[1] > 3
    ]
    assert [HEIGHT // 4, WIDTH // 4] in [shape[2:] for shape in copied.values()]
    assert sorted(shape[1:] for shape in large) == [  # refined maps, apart before they are enlarged
        [16, HEIGHT // 2, WIDTH // 2],
        [17, HEIGHT // 2, WIDTH // 2],
    ]


def test_only_what_inference_needs_is_in_it(mtcp: DeploymentGraph, deployed: Converted) -> None:
    left_out = {name for name, _ in mtcp.named_parameters()} - set(deployed.parameters)
    assert any(".auxiliary." in name for name in left_out)
    assert any(".cfm.project." in name for name in left_out)
    for module in ("decoder", "dfpn", "cfm", "srms.0", "srms.1", "srms.2", "head", "confidence"):
        prefix = f"network.branches.{module}."
        assert any(name.startswith(prefix) for name in deployed.parameters), prefix


@pytest.mark.parametrize("module", ["cfm", "srms.0", "srms.2", "dfpn"])
def test_its_modules_decide_the_maps(module: str, deployed: Converted, images: dict[str, RgbImage]) -> None:
    image = {"image": next(iter(images.values()))[None]}
    model = deployed.model
    before = ort.InferenceSession(model.SerializeToString()).run(["depth"], image)[0]
    kept = type(model).FromString(model.SerializeToString())
    touched = 0
    for tensor in kept.graph.initializer:
        if tensor.name.startswith(f"network.branches.{module}.") and tensor.dims:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values * 1.5).astype(values.dtype), tensor.name))
            touched += 1
    after = ort.InferenceSession(kept.SerializeToString()).run(["depth"], image)[0]
    assert touched
    assert np.abs(after - before).max() > 1e-3
