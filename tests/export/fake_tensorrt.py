"""A double of TensorRT that refuses every name which the real Python API does not have.

``tensorrt_api.json`` lists the public names of the classes that are used here, read from the bindings of
TensorRT 10.13.3 and 11.1.0. What a plan computes, ONNX Runtime computes.
"""

import ctypes
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from export.fp16.ranges import open_session
from export.onnx.nodes import typed_tensors

API: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("tensorrt_api.json").read_text(encoding="utf-8")
)
VERSIONS = {"10.13": "10.13.3.9", "11.1": "11.1.0.106"}
_HALF_WORDS = {
    "half": ("Half", "Row major linear FP16 format"),
    "float": ("Float", "Row major linear FP32 format"),
}


class _Guarded:
    """Has the real API's names, and no others that do not begin with an underscore."""

    _trt: "FakeTensorRT"

    def __init__(self, trt: "FakeTensorRT") -> None:
        object.__setattr__(self, "_trt", trt)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._trt._check(type(self).__name__, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._trt._check(type(self).__name__, name)
        object.__setattr__(self, name, value)


class _Enum:
    def __init__(self, version: str, name: str) -> None:
        self._name, self._version = name, version
        self._members = {member: index for index, member in enumerate(API[version][name])}

    def __getattr__(self, member: str) -> int:
        if member not in self._members:
            raise AttributeError(f"TensorRT {self._version} has no {self._name}.{member}")
        return self._members[member]


class FakeTensorRT(ModuleType):
    """The module ``tensorrt`` of a version, 10.13 or 11.1.

    Args:
        version: a key of `API`.
        silently_float: builds float32 engines, whatever the graph says.
        spoils: adds 1 to this output of every engine.
    """

    def __init__(self, version: str, *, silently_float: bool = False, spoils: str | None = None) -> None:
        super().__init__("tensorrt")
        self._version, self._silently_float, self._spoils = version, silently_float, spoils
        self.__version__ = VERSIONS[version]
        self._log: list[str] = []
        self._limits: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in API[self._version]:
            raise AttributeError(f"TensorRT {self._version} has no {name}")
        if name.isidentifier() and name in _CLASSES:
            return lambda *arguments: _CLASSES[name](self, *arguments)
        return _Enum(self._version, name)

    def _check(self, owner: str, name: str) -> None:
        if name not in API[self._version][owner]:
            raise AttributeError(f"TensorRT {self._version} has no {owner}.{name}")


class Logger(_Guarded):
    pass


class IHostMemory(bytes):
    """Bytes behind the buffer protocol."""


class Builder(_Guarded):
    def __init__(self, trt: FakeTensorRT, logger: Logger) -> None:
        assert isinstance(logger, Logger)
        super().__init__(trt)

    def create_network(self, flags: int = 0) -> "INetworkDefinition":
        return INetworkDefinition(self._trt, flags)

    def create_builder_config(self) -> "IBuilderConfig":
        return IBuilderConfig(self._trt)

    def create_optimization_profile(self) -> "IOptimizationProfile":
        return IOptimizationProfile(self._trt)

    def build_serialized_network(
        self, network: "INetworkDefinition", config: "IBuilderConfig"
    ) -> IHostMemory | None:
        trt = self._trt
        if network._model is None or not config._profiles:
            return None  # what is dynamic needs a profile
        typed = network._flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        plan = {
            "version": trt.__version__,
            "model": network._model.SerializeToString(),
            "shapes": config._profiles[0]._shapes,
            "half": typed and not trt._silently_float,
            "tf32": trt.BuilderFlag.TF32 in config._flags,
            "detailed": config._verbosity == trt.ProfilingVerbosity.DETAILED,
        }
        return IHostMemory(pickle.dumps(plan))


class INetworkDefinition(_Guarded):
    def __init__(self, trt: FakeTensorRT, flags: int) -> None:
        super().__init__(trt)
        self._flags = flags
        self._model: onnx.ModelProto | None = None


class IOptimizationProfile(_Guarded):
    def __init__(self, trt: FakeTensorRT) -> None:
        super().__init__(trt)
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(
        self, name: str, smallest: Sequence[int], best: Sequence[int], largest: Sequence[int]
    ) -> None:
        self._shapes[name] = [tuple(shape) for shape in (smallest, best, largest)]


class ITimingCache(_Guarded):
    def __init__(self, trt: FakeTensorRT, content: bytes) -> None:
        super().__init__(trt)
        self._content = content or trt.__version__.encode()

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content + b" and a tactic")


class IBuilderConfig(_Guarded):
    def __init__(self, trt: FakeTensorRT) -> None:
        super().__init__(trt)
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self._verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        self._flags = {trt.BuilderFlag.TF32}

    def clear_flag(self, flag: int) -> None:
        self._flags.discard(flag)

    @property
    def profiling_verbosity(self) -> int:
        return int(self._verbosity)

    @profiling_verbosity.setter
    def profiling_verbosity(self, level: int) -> None:
        self._verbosity = level

    def set_memory_pool_limit(self, pool: int, size: int) -> None:
        self._trt._limits[pool] = size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        smallest, best, largest = profile._shapes["image"]
        if not all(a <= b <= c for a, b, c in zip(smallest, best, largest, strict=True)):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if serialized_timing_cache and not serialized_timing_cache[:1].isdigit():
            return None  # no header of a cache
        return ITimingCache(self._trt, serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, ITimingCache):
            raise TypeError("set_timing_cache(): incompatible function arguments")
        fits = cache._content.startswith(self._trt.__version__.encode())
        if fits or ignore_mismatch:
            self._cache = cache
        return fits or ignore_mismatch

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class ParserError(_Guarded):
    def __init__(self, trt: FakeTensorRT, node: onnx.NodeProto, text: str) -> None:
        super().__init__(trt)
        self._node, self._text = node, text

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class OnnxParser(_Guarded):
    """Takes uint8 only where TensorRT does: inputs and outputs, cast from and to floating point."""

    def __init__(self, trt: FakeTensorRT, network: INetworkDefinition, logger: Logger) -> None:
        assert isinstance(logger, Logger)
        super().__init__(trt)
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        model = onnx.load_model(path)
        small = typed_tensors(model, TensorProto.UINT8) | {
            entry.name for entry in model.graph.input if entry.type.tensor_type.elem_type == TensorProto.UINT8
        }
        floating = typed_tensors(model, TensorProto.FLOAT) | typed_tensors(model, TensorProto.FLOAT16)
        for node in model.graph.node:
            touches = not small.isdisjoint([*node.input, *node.output])
            if touches and (node.op_type != "Cast" or floating.isdisjoint([*node.input, *node.output])):
                self._errors.append(
                    ParserError(self._trt, node, "uint8 is converted from and to floats only")
                )
            if node.op_type in {"CumSum", "GridSample"} and self._trt._version == "11.1":
                self._errors.append(ParserError(self._trt, node, "this double will have none of it"))
        self._network._model = model
        return not self._errors


class Runtime(_Guarded):
    def __init__(self, trt: FakeTensorRT, logger: Logger) -> None:
        assert isinstance(logger, Logger)
        super().__init__(trt)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        try:
            plan = pickle.loads(serialized_engine)
        except pickle.UnpicklingError:
            return None
        return ICudaEngine(self._trt, plan) if plan["version"] == self._trt.__version__ else None


class ICudaEngine(_Guarded):
    def __init__(self, trt: FakeTensorRT, plan: dict[str, Any]) -> None:
        super().__init__(trt)
        self._plan = plan
        self._model = onnx.ModelProto.FromString(plan["model"])
        self._tensors = [*self._model.graph.input, *self._model.graph.output]
        self._session = open_session(self._model)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self._tensors[index].name)

    def get_tensor_dtype(self, name: str) -> int:
        kinds = {TensorProto.UINT8: "UINT8", TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF"}
        kind = next(entry.type.tensor_type.elem_type for entry in self._tensors if entry.name == name)
        return int(getattr(self._trt.DataType, kinds[kind]))

    def create_execution_context(self) -> "IExecutionContext":
        return IExecutionContext(self._trt, self)

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self._trt, self)


class IExecutionContext(_Guarded):
    def __init__(self, trt: FakeTensorRT, engine: ICudaEngine) -> None:
        super().__init__(trt)
        self._engine = engine
        self._shape: tuple[int, ...] | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._engine._plan["shapes"][name]
        fits = len(shape) == len(smallest) and all(
            low <= axis <= high for low, axis, high in zip(smallest, shape, largest, strict=True)
        )
        self._shape = tuple(shape) if fits else None
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        entry = next(entry for entry in self._engine._tensors if entry.name == name)
        axes = [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
        return (self._shape[0], *axes[1:])

    def execute_v2(self, bindings: list[int]) -> bool:
        if self._shape is None or len(bindings) != len(self._engine._tensors):
            return False
        size = int(np.prod(self._shape))
        image = np.frombuffer(ctypes.string_at(bindings[0], size), np.uint8).reshape(self._shape)
        maps = self._engine._session.run(None, {"image": image})
        for entry, address, values in zip(self._engine._tensors[1:], bindings[1:], maps, strict=True):
            spoiled = values + 1 if entry.name == self._trt._spoils else values
            content = spoiled.astype(values.dtype).tobytes()
            ctypes.memmove(address, content, len(content))
        return True


class EngineInspector(_Guarded):
    def __init__(self, trt: FakeTensorRT, engine: ICudaEngine) -> None:
        super().__init__(trt)
        self._engine = engine
        self._context: IExecutionContext | None = None

    @property
    def execution_context(self) -> IExecutionContext | None:
        return self._context

    @execution_context.setter
    def execution_context(self, context: IExecutionContext) -> None:
        self._context = context

    def get_engine_information(self, form: int) -> str:
        assert form == self._trt.LayerInformationFormat.JSON
        nodes = self._engine._model.graph.node
        if not self._engine._plan["detailed"]:
            return json.dumps({"Layers": [node.name for node in nodes]})
        known = self._context is not None and self._context._shape is not None
        fp16 = (
            typed_tensors(self._engine._model, TensorProto.FLOAT16) if self._engine._plan["half"] else set()
        )
        floats = typed_tensors(self._engine._model, TensorProto.FLOAT) | typed_tensors(
            self._engine._model, TensorProto.FLOAT16
        )
        layers = []
        for node in nodes:
            outputs = []
            for name in node.output:
                word = "half" if name in fp16 else "float" if name in floats else None
                short, form_text = _HALF_WORDS[word] if word and known else ("", "N/A")
                entry = {"Name": name, "Dimensions": [1]}
                if self._trt._version == "11.1":
                    entry |= {"DataType": short or "Int64", "Format": form_text}
                else:
                    entry |= {"Format/Datatype": form_text if known else "N/A due to dynamic shapes"}
                outputs.append(entry)
            layers.append({"Name": node.name, "LayerType": node.op_type, "Outputs": outputs})
        return json.dumps({"Layers": layers})


_CLASSES = {kind.__name__: kind for kind in (Builder, Logger, OnnxParser, Runtime)}
