"""Nodes kept in FP32 when the rest of the network is computed in FP16.

Each is found from the graph alone (operators, connections, names of parameters), so that any bundle
can be converted, whatever checkpoint it came from.
"""

import re
from collections.abc import Callable, Mapping

from export.onnx.nodes import MOVES, SHAPE_READERS, Nodes

FP16_MAX = 65504.0
"""Largest finite float16."""
FP16_MIN = 2.0**-14
"""Smallest normal float16; smaller constants (an epsilon, say) would lose their digits or become zero."""
HEADROOM = 8
"""A value that comes within this factor of `FP16_MAX` on any image stays float32."""

_REPRESENTATION = frozenset(
    {
        *("Einsum", "GreaterOrEqual", "Less", "MatMul", "Mul", "Or", "Resize", "Sigmoid"),
        *("ReduceMax", "ReduceMean", "ReduceSum"),
    }
)


def _normalisation(nodes: Nodes) -> set[int]:
    """LayerNorm and GroupNorm (which ONNX spells InstanceNormalization): their variances overflow."""
    return nodes.of("GroupNormalization", "InstanceNormalization", "LayerNormalization")


def _softmax(nodes: Nodes) -> set[int]:
    return nodes.of("Softmax")


def _sampling(nodes: Nodes) -> set[int]:
    """GridSample and the arithmetic of its locations: a half holds a coordinate near 1 to 1/2048 only."""
    samplers = nodes.of("GridSample")
    return samplers | nodes.upstream((nodes.nodes[index].input[1] for index in samplers), contraction=False)


def _representation(nodes: Nodes) -> set[int]:
    """R = P * sum_n M_n and the masks M (Sec. 3.2): sums of unbounded logits, and hard thresholds on them."""
    return {
        index
        for index, node in enumerate(nodes.nodes)
        if node.op_type in _REPRESENTATION
        and re.search(r"(^|\.)(backbone|mask_predictor|transformer(\.decoder)?)$", nodes.modules[index])
    }


def _affinity(nodes: Nodes) -> set[int]:
    """The CFM's affinity a1^T a2 (Sec. 3.3), which the paper does not scale."""
    scores = (
        nodes.nodes[index].input[0]
        for index in nodes.of("Softmax")
        if re.search(r"\.cfm$", nodes.modules[index])
    )
    return nodes.upstream(scores, contraction=True)


def _heads(nodes: Nodes) -> set[int]:
    """The heads of all tasks, one computation, for the metres they emit: a half holds 8 m to 8 mm.

    And those of their confidence, which are fed with logits and logarithms of all tasks.
    """
    return {
        index
        for index, module in enumerate(nodes.modules)
        if re.search(r"\.(head|confidence)(\.|$)", module) and nodes.nodes[index].op_type not in SHAPE_READERS
    }


def _constants(nodes: Nodes) -> set[int]:
    """What no image changes, but for weights that are only moved: position encodings, reference points."""
    weights = set(nodes.constants)
    moved = set()
    for index, node in enumerate(nodes.nodes):
        if node.op_type in MOVES and weights.issuperset(node.input):
            moved.add(index)
            weights.update(node.output)
    return nodes.independent - moved


def _ends(nodes: Nodes) -> set[int]:
    """Pre- and post-processing: pixels up to the first, maps from the last contraction on."""
    ends = nodes.upstream(nodes.outputs, contraction=False)
    ends |= {nodes.producer[name] for name in nodes.outputs}
    waiting = list(nodes.inputs)
    while waiting:
        for index in nodes.consumers[waiting.pop()]:
            if index not in ends and nodes.nodes[index].op_type in {"Cast", "Div", "Mul", "Sub", "Transpose"}:
                ends.add(index)
                waiting += nodes.nodes[index].output
    return ends


KEPT_IN_FP32: Mapping[str, Callable[[Nodes], set[int]]] = {
    "layer and group normalisation": _normalisation,
    "softmax": _softmax,
    "sampling locations and GridSample": _sampling,
    "R = P * sum M": _representation,
    "CFM affinity": _affinity,
    "heads": _heads,
    "position encodings": _constants,
    "pre- and post-processing": _ends,
}
"""What stays in FP32 by its nature, by reason."""


def find_fp32_nodes(nodes: Nodes, ranges: Mapping[str, float]) -> dict[str, set[int]]:
    """The nodes to keep, by reason: `KEPT_IN_FP32`, and ``range`` for values that do not fit FP16.

    Args:
        nodes: the float32 graph.
        ranges: the activation ranges, by tensor the largest magnitude on images and in weights; see
            `export.fp16.ranges`.
    """
    kept = {reason: find(nodes) for reason, find in KEPT_IN_FP32.items()}
    unfit = {name for name, largest in ranges.items() if largest > FP16_MAX / HEADROOM}
    unfit |= {name for name, largest in ranges.items() if name in nodes.constants and 0 < largest < FP16_MIN}
    kept["range"] = {
        index
        for index, node in enumerate(nodes.nodes)
        if not unfit.isdisjoint(node.input) or not unfit.isdisjoint(node.output)
    }
    return kept
