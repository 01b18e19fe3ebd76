"""GridSample spelled as gathers, for TensorRT alone.

TensorRT from 10.14 on is reported to sample wrongly in deformable attention (NVIDIA/TensorRT issue 4813).
On a CPU the gathers cost several times GridSample, so the portable graphs keep that.
"""

import onnx
from onnx import NodeProto, helper, inliner, parser

from export.errors import ExportError
from export.onnx.convert import OPSET
from export.onnx.nodes import replace_nodes

_DOMAIN = "deformable"
_BILINEAR = {"mode": b"bilinear", "padding_mode": b"zeros", "align_corners": 0}
"""The attributes of the only sampling that is spelled here, which are ONNX's defaults too."""
_GATHER = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} (image, grid) => (sampled)
{{
    zero = Constant <value = float {{0.0}}> ()
    half = Constant <value = float {{0.5}}> ()
    one = Constant <value = float {{1.0}}> ()
    size = Constant <value = float[2] {{{width}, {height}}}> ()
    last = Sub (size, one)
    strides = Constant <value = float[2] {{1.0, {width}}}> ()
    corners = Constant <value = float[4, 2] {{0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0}}> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    axis_3 = Constant <value_ints = [3]> ()

    as_locations = Constant <value_ints = [0, -1, 2]> ()
    locations = Reshape (grid, as_locations)
    shifted = Add (locations, one)
    scaled = Mul (shifted, size)
    doubled = Sub (scaled, one)
    exact = Mul (doubled, half)
    position = Unsqueeze (exact, axis_2)
    first = Floor (position)
    pixels = Add (first, corners)

    above = Max (pixels, zero)
    clipped = Min (above, last)
    is_inside = Equal (clipped, pixels)
    inside = Cast <to = 1> (is_inside)
    difference = Sub (position, pixels)
    distance = Abs (difference)
    closeness = Sub (one, distance)
    counted = Mul (closeness, inside)
    weight = ReduceProd <keepdims = 0> (counted, axis_3)

    steps = Mul (clipped, strides)
    offset = ReduceSum <keepdims = 0> (steps, axis_3)
    whole = Cast <to = 6> (offset)
    as_indices = Constant <value_ints = [0, 1, -1]> ()
    indices = Reshape (whole, as_indices)
    every_channel = Constant <value_ints = [1, {channels}, 1]> ()
    index = Expand (indices, every_channel)
    as_rows = Constant <value_ints = [0, {channels}, {area}]> ()
    rows = Reshape (image, as_rows)
    gathered = GatherElements <axis = 2> (rows, index)

    as_corners = Constant <value_ints = [0, {channels}, -1, 4]> ()
    values = Reshape (gathered, as_corners)
    weights = Unsqueeze (weight, axis_1)
    weighted = Mul (values, weights)
    sums = ReduceSum <keepdims = 0> (weighted, axis_3)
    extent = Shape <start = 1, end = 3> (grid)
    batch_and_channels = Constant <value_ints = [0, {channels}]> ()
    shape = Concat <axis = 0> (batch_and_channels, extent)
    sampled = Reshape (sums, shape)
}}
"""
"""Of an image [N,C,H,W] at P = h w locations of a grid [N,h,w,2]: ``pixels`` and what is computed from them
are the four around each location, x before y, [N,P,4,2]; ``weight`` and ``offset`` [N,P,4]; ``values``
[N,C,P,4]."""


def gather_samples(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` in which every GridSample is a gather of four pixels and their weighted sum.

    Bilinear, zeros outside, ``align_corners=0``: what deformable attention asks for. A pixel at distance
    (dx, dy) weighs (1 - |dx|)(1 - |dy|), and nothing if it lies outside the image.

    Raises:
        ExportError: a GridSample samples otherwise, or in an image of unknown channels or size.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        entry.name: [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
        for entry in (*inferred.value_info, *inferred.input)
    }
    functions: dict[str, onnx.FunctionProto] = {}
    nodes: list[NodeProto] = []
    for node in rewritten.graph.node:
        if node.op_type != "GridSample":
            nodes.append(node)
            continue
        _check(node)
        shape = shapes.get(node.input[0], [])
        if len(shape) != 4 or not all(shape[1:]):
            raise ExportError(f"GridSample {node.name} samples an image of unknown size {shape}")
        function = _function(*shape[1:])
        functions[function.name] = function
        nodes.append(helper.make_node(function.name, node.input, node.output, name=node.name, domain=_DOMAIN))
    if not functions:
        return rewritten
    replace_nodes(rewritten, nodes)
    rewritten.functions.extend(functions.values())
    rewritten.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    inlined: onnx.ModelProto = inliner.inline_local_functions(rewritten)
    opsets = [entry for entry in inlined.opset_import if entry.domain != _DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(opsets)
    return inlined


def _check(node: NodeProto) -> None:
    found = _BILINEAR | {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if found != _BILINEAR:
        raise ExportError(
            f"GridSample {node.name} has {found}; only bilinear sampling with zeros outside and "
            "align_corners 0 can be spelled as gathers"
        )


def _function(channels: int, height: int, width: int) -> onnx.FunctionProto:
    return parser.parse_function(
        _GATHER.format(
            domain=_DOMAIN,
            opset=OPSET,
            name=f"gather_{channels}_{height}_{width}",
            channels=channels,
            height=float(height),
            width=float(width),
            area=height * width,
        )
    )
