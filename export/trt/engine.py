"""Running a plan, and reading back what is in it."""

import json
import re
from collections import Counter
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import PlanError
from export.parity import Map
from export.trt.network import logger
from mtcp_serve.bundle.manifest import IMAGE_TENSOR

DEVICE = "cuda"
"""Where PyTorch keeps the tensors that a plan reads and writes."""
Precision = Literal["fp16", "fp32", "other"]
MOVERS = frozenset({"CAST", "CONSTANT", "NoOp", "Reformat"})
"""Types of layers that compute nothing, in the words of the inspector and of a parsed network."""


class Engine:
    """A deserialized plan on one GPU.

    Raises:
        PlanError: TensorRT cannot deserialize it.
    """

    def __init__(self, trt: ModuleType, plan: bytes) -> None:
        self._trt = trt
        self._device = torch.device(DEVICE)
        self._runtime = trt.Runtime(logger(trt))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanError(f"TensorRT {trt.__version__} cannot load the plan; its log above says why")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise PlanError("TensorRT cannot make an execution context; is there enough GPU memory?")

    def run(self, images: NDArray[np.uint8]) -> dict[str, Map]:
        """Maps [N,...] by the output's name, of images [N,H,W,3] with N within the profile.

        Raises:
            PlanError: the plan does not take this shape, or running failed.
        """
        self._shape(images.shape)
        image = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        tensors = {IMAGE_TENSOR: image}
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        for name in names:
            if name != IMAGE_TENSOR:
                shape = tuple(self._context.get_tensor_shape(name))
                kind = self._type(self._engine.get_tensor_dtype(name))
                tensors[name] = torch.empty(shape, dtype=kind, device=self._device)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        if not self._context.execute_v2([tensors[name].data_ptr() for name in names]):
            raise PlanError("TensorRT could not run the plan; its log above says why")
        return {name: tensors[name].cpu().numpy() for name in names if name != IMAGE_TENSOR}

    def layers(self, batch: int, height: int, width: int) -> list[dict[str, Any]]:
        """What the engine inspector says of each layer, with this shape of the input.

        Raises:
            PlanError: the plan was built without details.
        """
        self._shape((batch, height, width, 3))
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context  # else layers of dynamic shape have no format
        report = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        layers: list[dict[str, Any]] = report["Layers"]
        if not layers or not all(isinstance(layer, dict) for layer in layers):
            raise PlanError("the plan says nothing of its layers; build it with detailed verbosity")
        return layers

    def _shape(self, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(IMAGE_TENSOR, tuple(shape)):
            raise PlanError(f"the plan does not take images of shape {list(shape)}")

    def _type(self, kind: Any) -> torch.dtype:
        types = self._trt.DataType
        known = {types.FLOAT: torch.float32, types.HALF: torch.float16, types.UINT8: torch.uint8}
        if kind not in known:
            raise PlanError(f"an output of the plan has the type {kind}, which no map has")
        return known[kind]


def layer_precision(layer: dict[str, Any]) -> Precision:
    """In what a layer's results are: TensorRT 10 says ``Format/Datatype``, 11 says it in two entries.

    A layer whose results are of both kinds counts as float32; one that moves or only counts as ``other``.
    """
    if layer.get("LayerType") in MOVERS:
        return "other"
    text = " ".join(
        str(value)
        for tensor in layer.get("Outputs", ())
        for key, value in tensor.items()
        if re.search("format|datatype", key, re.IGNORECASE)
    )
    if re.search(r"\b(float|fp32)\b", text, re.IGNORECASE):
        return "fp32"
    return "fp16" if re.search(r"\b(half|fp16)\b", text, re.IGNORECASE) else "other"


def precision_histogram(layers: list[dict[str, Any]]) -> Counter[Precision]:
    """How many layers give FP16, float32 and anything else."""
    return Counter(layer_precision(layer) for layer in layers)


def fp16_share(histogram: Counter[Precision]) -> float:
    """Part of the floating-point layers that gives FP16, 0 to 1."""
    floating = histogram["fp16"] + histogram["fp32"]
    return histogram["fp16"] / floating if floating else 0.0
