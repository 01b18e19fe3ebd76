"""What is computed from weights alone, computed once and stored.

`export.onnx.simplify` leaves it to the runtimes, for weights as they are may be stored in FP16 without any
loss; a graph whose precision is said node by node stores the results instead.
"""

import onnx
import onnxruntime as ort
from onnx import numpy_helper

from export.onnx.nodes import SHAPE_READERS, Nodes, replace_nodes


def fold_weights(model: onnx.ModelProto) -> None:
    """Replace, in place, nodes that read nothing but weights by their results, under the same names."""
    nodes = Nodes(model)
    known = set(nodes.constants)
    folded = []
    for node in nodes.nodes:
        given = not set(nodes.outputs).isdisjoint(node.output)
        if node.input and not given and known.issuperset(node.input) and node.op_type not in SHAPE_READERS:
            folded.append(node)
            known.update(node.output)
    names = {name for node in folded for name in node.output}
    rest = [node for node in nodes.nodes if not names.issuperset(node.output)]
    read = sorted(names & {name for node in rest for name in node.input})
    if not read:
        return
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = "weights"
    part.graph.node.extend(folded)
    wanted = {name for node in folded for name in node.input}
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in wanted)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in read)
    session = ort.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, values in zip(read, session.run(read, {}), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    replace_nodes(model, rest)
    stated = [entry for entry in model.graph.value_info if entry.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(stated)
