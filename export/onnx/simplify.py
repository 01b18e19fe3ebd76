"""Fold constants and take out what computes nothing: what is left of an exported graph is a quarter of it."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir
from onnx_ir import serde
from onnx_ir.passes import Sequential, common
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

RULES = (
    *rules.mul_by_1_rule.commute(),
    *rules.add_0_rule.commute(),
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.dropout_zero_rule,
    rules.dropout_inference_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.min_min_rule,
    rules.max_max_rule,
    rules.min_max_rule,
    rules.max_min_rule,
    rules.successive_clip_relu_rule,
    rules.successive_relu_clip_rule,
    rules.successive_relu_rule,
    rules.successive_clip_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.no_op_dynamic_scatter_nd_rule,
    rules.no_op_static_scatter_nd_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)
"""Those of `onnxscript.optimizer.optimize` but three for convolutions of integers, which no network here has,
and the one that makes a Split of Slices: having two outputs, it looks at the whole graph for each node. It
took 80 of the 94 seconds of a graph with 12,578 nodes."""
ROUNDS = 2
"""Folding makes new matches, and they new constants."""
REPEATED = 4096
"""Elements above which a tensor made by repeating a smaller one is not stored."""


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same computation with fewer nodes; functions are inlined, equal initializers and nodes are one."""
    graph = serde.deserialize_model(model)
    common.InlinePass()(graph)
    rewrite = Sequential(
        RewritePass(RULES),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
    )
    with _quiet_folding():
        for _ in range(ROUNDS):
            fold_constants_ir(graph, onnx_shape_inference=True, should_fold=_worth_storing)
            rewrite(graph)
    Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(size_limit=2**31),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(graph)
    return serde.serialize_model(graph)


def _worth_storing(node: ir.Node) -> bool | None:
    """Not a tensor that repeats a smaller one: runtimes do that as they open the graph, from a small file."""
    if node.op_type != "Expand" or node.inputs[0] is None or node.outputs[0].shape is None:
        return None
    values, shape = node.inputs[0], node.outputs[0].shape
    if values.dtype is None or not values.dtype.is_floating_point() or not shape.is_static():
        return None
    return False if math.prod(shape.numpy()) > REPEATED else None


@contextmanager
def _quiet_folding() -> Iterator[None]:
    """Hide what onnxscript's constant folding reports as a warning each time it leaves a Split alone."""
    logger = logging.getLogger("onnxscript.optimizer._constant_folding")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
