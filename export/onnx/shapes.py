"""Slices, reshapes and resizes spelled so that no arithmetic is needed to know their shapes.

Height and width are fixed and only the batch varies, but PyTorch's exporter computes some shapes from other
shapes, and TensorRT's parser the bounds of every Slice of a tensor with a varying axis, in some twenty
layers. A Split of a fixed axis, a Reshape with one -1 and a Resize by whole scales say the same without.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from export.onnx.nodes import replace_nodes

Shape = list[int | None]
"""Axes; None where they vary."""


def fold_shapes(model: onnx.ModelProto) -> None:
    """Rewrite, in place, what has constant bounds on a fixed axis, and drop nodes that are not read then."""
    shapes = known_shapes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    rewriter = _Rewriter(constants, shapes)
    groups: dict[tuple[str, int], list[_Cut]] = defaultdict(list)
    cuts: dict[str, _Cut] = {}
    for node in model.graph.node:
        cut = rewriter.cut(node)
        if cut is not None:
            cuts[node.output[0]] = cut
            groups[cut.data, cut.axis].append(cut)
    nodes: list[NodeProto] = []
    done: set[tuple[str, int]] = set()
    for node in model.graph.node:
        cut = cuts.get(node.output[0]) if node.output else None
        if cut is None:
            nodes.append(rewriter.reshape(node) or rewriter.resize(node) or node)
        elif cut.step != 1:
            nodes.append(rewriter.gather(node, cut))
        elif (cut.data, cut.axis) not in done:
            group = [other for other in groups[cut.data, cut.axis] if other.step == 1]
            nodes += rewriter.split(group)
            done.add((cut.data, cut.axis))
    replace_nodes(model, _read(nodes, [entry.name for entry in model.graph.output]))
    model.graph.initializer.extend(rewriter.added.values())


class _Cut:
    """A Slice of one fixed axis with constant bounds."""

    def __init__(self, node: NodeProto, axis: int, start: int, stop: int, step: int) -> None:
        self.node, self.data, self.into = node, node.input[0], node.output[0]
        self.axis, self.start, self.stop, self.step = axis, start, stop, step


class _Rewriter:
    def __init__(self, constants: Mapping[str, onnx.TensorProto], shapes: Mapping[str, Shape]) -> None:
        self._constants, self._shapes = constants, shapes
        self.added: dict[str, onnx.TensorProto] = {}

    def cut(self, node: NodeProto) -> _Cut | None:
        if node.op_type != "Slice" or not all(name in self._constants for name in node.input[1:] if name):
            return None
        values = [self._values(name) if name else None for name in node.input[1:]]
        starts, ends, axes, steps = (*values, None, None)[:4]
        shape = self._shapes.get(node.input[0])
        if starts is None or ends is None or len(starts) != 1 or shape is None:
            return None
        axis = (axes[0] if axes else 0) % len(shape)
        size = shape[axis]
        if size is None:
            return None
        start, stop, step = slice(starts[0], ends[0], steps[0] if steps else 1).indices(size)
        return _Cut(node, axis, start, stop, step) if step > 0 and start < stop else None

    def split(self, cuts: list[_Cut]) -> Iterable[NodeProto]:
        """One Split where the cuts do not overlap, else one a cut."""
        pieces = sorted({(cut.start, cut.stop) for cut in cuts})
        apart = all(one[1] <= other[0] for one, other in pairwise(pieces))
        for group in [cuts] if apart else [[cut] for cut in cuts]:
            yield from self._split(group)

    def _split(self, cuts: list[_Cut]) -> Iterable[NodeProto]:
        first = cuts[0]
        size = self._shapes[first.data][first.axis]
        assert size is not None
        bounds = sorted({0, size, *(cut.start for cut in cuts), *(cut.stop for cut in cuts)})
        names = {(cut.start, cut.stop): cut.into for cut in reversed(cuts)}
        pairs = list(pairwise(bounds))
        outputs = [names.get(pair, f"{first.into}.rest{index}") for index, pair in enumerate(pairs)]
        sizes = self._constant(f"{first.into}.sizes", [stop - start for start, stop in pairs])
        yield _like(first.node, "Split", [first.data, sizes], outputs, axis=first.axis)
        for cut in cuts:  # the same piece twice
            if names[cut.start, cut.stop] != cut.into:
                yield _like(cut.node, "Identity", [names[cut.start, cut.stop]], [cut.into])

    def gather(self, node: NodeProto, cut: _Cut) -> NodeProto:
        index = self._constant(f"{cut.into}.index", list(range(cut.start, cut.stop, cut.step)))
        return _like(node, "Gather", [cut.data, index], [cut.into], axis=cut.axis)

    def reshape(self, node: NodeProto) -> NodeProto | None:
        """The Reshape with a constant shape, where one axis at most varies."""
        if node.op_type != "Reshape" or node.input[1] in self._constants:
            return None
        shape = self._shapes.get(node.output[0])
        if shape is None or shape.count(None) > 1:
            return None
        name = self._constant(f"{node.output[0]}.shape", [-1 if axis is None else axis for axis in shape])
        return _like(node, "Reshape", [node.input[0], name], node.output)

    def resize(self, node: NodeProto) -> NodeProto | None:
        """The Resize by constant scales, where they give exactly the size that is computed."""
        if node.op_type != "Resize" or len(node.input) < 4 or node.input[3] in self._constants:
            return None
        before, after = (self._shapes.get(name) for name in (node.input[0], node.output[0]))
        if before is None or after is None or len(before) != len(after) or {None} == {*before, *after}:
            return None
        scales = []
        for old, new in zip(before, after, strict=True):
            if old is None or new is None:
                if old is not new:
                    return None
                scales.append(1.0)
            elif new % old:
                return None  # a fraction would be rounded
            else:
                scales.append(new / old)
        name = f"{node.output[0]}.scales"
        self.added[name] = numpy_helper.from_array(np.array(scales, np.float32), name)
        copy = NodeProto()
        copy.CopyFrom(node)
        del copy.input[2:]
        copy.input.append(name)
        return copy

    def _values(self, name: str) -> list[int]:
        values: list[int] = numpy_helper.to_array(self._constants[name]).reshape(-1).tolist()
        return values

    def _constant(self, name: str, values: list[int]) -> str:
        self.added[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name


def _like(
    node: NodeProto, operator: str, inputs: Sequence[str], outputs: Sequence[str], axis: int | None = None
) -> NodeProto:
    """A node in the place of ``node``, with its name and the exporter's notes."""
    made = helper.make_node(operator, inputs, outputs, name=node.name, axis=axis)
    made.metadata_props.extend(node.metadata_props)
    return made


def known_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """The shapes of inputs, outputs and computed tensors, by name, as far as inference finds them."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        entry.name: [
            axis.dim_value if axis.HasField("dim_value") else None
            for axis in entry.type.tensor_type.shape.dim
        ]
        for entry in (*inferred.value_info, *inferred.input, *inferred.output)
        if entry.type.tensor_type.HasField("shape")
    }


def _read(nodes: list[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that ``outputs`` need, in their order."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]
