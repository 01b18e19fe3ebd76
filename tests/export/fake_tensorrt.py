"""What stands in for data-centre TensorRT, for which there is no wheel, and for the GPU that runs plans.

Parser, network, config, profiles and builder are the real ones of TensorRT for RTX, which has the API of
TensorRT 11, behind a guard: ``tensorrt_api.json`` lists the public names of the classes that are used here,
read from the bindings of TensorRT 10.13.3 and 11.1.0, and any other name is refused. Doubles are what no
machine without a GPU has: running a plan and its inspector, which ONNX Runtime and the parsed network stand
in for, and the timing cache, which TensorRT for RTX does not keep.
"""

import ctypes
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.fp16.ranges import open_session
from export.trt.network import describe_layers

API: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("tensorrt_api.json").read_text(encoding="utf-8")
)
VERSIONS = {"10.13": "10.13.3.9", "11.1": "11.1.0.106"}
BINDINGS = "tensorrt_rtx_bindings"
needs_tensorrt = pytest.mark.skipif(find_spec(BINDINGS) is None, reason="no TensorRT for RTX: x86-64 alone")


def real_tensorrt() -> ModuleType:
    """TensorRT for RTX."""
    return import_module(BINDINGS)


@dataclass
class _Plan:
    """What is known of a plan that was built in this process."""

    version: str
    model: onnx.ModelProto
    shapes: dict[str, list[tuple[int, ...]]]
    layers: list[dict[str, Any]]
    detailed: bool


_PLANS: dict[str, _Plan] = {}
"""By the SHA-256 of the plan."""


def _check(version: str, owner: str, name: str) -> None:
    if not name.startswith("_") and name not in API[version][owner]:
        raise AttributeError(f"TensorRT {version} has no {owner}.{name}")


class FakeTensorRT(ModuleType):
    """The module ``tensorrt`` of a version, 10.13 or 11.1.

    Args:
        version: a key of `API`.
        silently_float: says that engines are float32, whatever the graph says.
        spoils: adds 1 to this output of every engine.
    """

    def __init__(self, version: str, *, silently_float: bool = False, spoils: str | None = None) -> None:
        super().__init__("tensorrt")
        self._real = real_tensorrt()
        self._version, self._silently_float, self._spoils = version, silently_float, spoils
        self.__version__ = VERSIONS[version]
        self._graph = ""
        self._configs: list[Any] = []
        """The real configs of all builds."""

    def __getattr__(self, name: str) -> Any:
        if name not in API[self._version]:
            raise AttributeError(f"TensorRT {self._version} has no {name}")
        real = getattr(self._real, name)
        if hasattr(real, "__members__"):
            return _Enum(self._version, name, real)
        if name == "Runtime":
            return lambda logger: Runtime(self, logger)
        return lambda *arguments: _Guard(self, real(*map(_real, arguments)))


class _Enum:
    def __init__(self, version: str, name: str, real: Any) -> None:
        self._version, self._name, self._real = version, name, real

    def __getattr__(self, member: str) -> Any:
        _check(self._version, self._name, member)
        return getattr(self._real, member)


class _Guard:
    """A real object that has the names of the guarded version alone; what it gives is guarded likewise."""

    _trt: FakeTensorRT
    _object: Any
    _extra: dict[str, Any]

    def __init__(self, trt: FakeTensorRT, real: Any) -> None:
        object.__setattr__(self, "_trt", trt)
        object.__setattr__(self, "_object", real)
        object.__setattr__(self, "_extra", {})

    def __getattr__(self, name: str) -> Any:
        owner = type(self._object).__name__
        _check(self._trt._version, owner, name)
        override: Callable[..., Any] | None = _OVERRIDES.get((owner, name))
        if override is not None:
            return lambda *arguments: override(self, *arguments)
        found = getattr(self._object, name)
        if not callable(found):
            return _guarded(self._trt, found)
        return lambda *arguments: _guarded(self._trt, found(*map(_real, arguments)))

    def __setattr__(self, name: str, value: Any) -> None:
        _check(self._trt._version, type(self._object).__name__, name)
        setattr(self._object, name, _real(value))


def _real(value: Any) -> Any:
    return value._object if isinstance(value, _Guard) else value


def _guarded(trt: FakeTensorRT, value: Any) -> Any:
    return _Guard(trt, value) if type(value).__name__ in API[trt._version] else value


def _parse(parser: _Guard, path: str) -> bool:
    parser._trt._graph = path
    return bool(parser._object.parse_from_file(path))


def _add_profile(config: _Guard, profile: _Guard) -> int:
    config._extra["profile"] = _real(profile)
    return int(config._object.add_optimization_profile(_real(profile)))


def _build(builder: _Guard, network: _Guard, config: _Guard) -> Any:
    """Build for real, put the version into the header, and remember what the plan was built from."""
    trt, real = builder._trt, config._object
    trt._configs.append(real)
    memory = builder._object.build_serialized_network(network._object, real)
    plan = None
    if memory is not None:
        plan = bytearray(memoryview(memory))
        plan[24:28] = bytes(int(part) for part in trt.__version__.split("."))
        layers = describe_layers(network._object)
        if trt._silently_float:
            for layer in layers:
                for output in layer["Outputs"]:
                    output["DataType"] = output["DataType"].replace("HALF", "FLOAT")
        _PLANS[hashlib.sha256(plan).hexdigest()] = _Plan(
            trt.__version__,
            onnx.load_model(trt._graph),
            {"image": [tuple(shape) for shape in config._extra["profile"].get_shape("image")]},
            layers,
            real.profiling_verbosity == trt._real.ProfilingVerbosity.DETAILED,
        )
    return plan


class ITimingCache:
    """A cache that knows the TensorRT that wrote it, as the data-centre one does."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b" and a tactic"


def _create_cache(config: _Guard, content: bytes) -> ITimingCache | None:
    if content and not content[:1].isdigit():
        return None  # no header of a cache
    return ITimingCache(content or config._trt.__version__.encode())


def _set_cache(config: _Guard, cache: ITimingCache, ignore_mismatch: bool) -> bool:
    fits = cache.content.startswith(config._trt.__version__.encode())
    if fits or ignore_mismatch:
        config._extra["cache"] = cache
    return fits or ignore_mismatch


_OVERRIDES: dict[tuple[str, str], Callable[..., Any]] = {
    ("OnnxParser", "parse_from_file"): _parse,
    ("Builder", "build_serialized_network"): _build,
    ("IBuilderConfig", "add_optimization_profile"): _add_profile,
    ("IBuilderConfig", "create_timing_cache"): _create_cache,
    ("IBuilderConfig", "set_timing_cache"): _set_cache,
    ("IBuilderConfig", "get_timing_cache"): lambda config: config._extra["cache"],
}


class _Double:
    """Has the real API's names, and no others that do not begin with an underscore."""

    _trt: FakeTensorRT

    def __init__(self, trt: FakeTensorRT) -> None:
        object.__setattr__(self, "_trt", trt)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            _check(self._trt._version, type(self).__name__, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _check(self._trt._version, type(self).__name__, name)
        object.__setattr__(self, name, value)


class Runtime(_Double):
    def __init__(self, trt: FakeTensorRT, logger: _Guard) -> None:
        assert type(_real(logger)).__name__ == "Logger"
        super().__init__(trt)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        plan = _PLANS.get(hashlib.sha256(serialized_engine).hexdigest())
        return ICudaEngine(self._trt, plan) if plan and plan.version == self._trt.__version__ else None


class ICudaEngine(_Double):
    def __init__(self, trt: FakeTensorRT, plan: _Plan) -> None:
        super().__init__(trt)
        self._plan = plan
        self._tensors = [*plan.model.graph.input, *plan.model.graph.output]
        self._session = open_session(plan.model)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self._tensors[index].name)

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {TensorProto.UINT8: "UINT8", TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF"}
        kind = next(entry.type.tensor_type.elem_type for entry in self._tensors if entry.name == name)
        return getattr(self._trt.DataType, kinds[kind])

    def create_execution_context(self) -> "IExecutionContext":
        return IExecutionContext(self._trt, self)

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self._trt, self)


class IExecutionContext(_Double):
    def __init__(self, trt: FakeTensorRT, engine: ICudaEngine) -> None:
        super().__init__(trt)
        self._engine = engine
        self._shape: tuple[int, ...] | None = None

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        smallest, _, largest = self._engine._plan.shapes[name]
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


class EngineInspector(_Double):
    """Says the layers of the parsed network, in the words of each version, as none are fused here."""

    def __init__(self, trt: FakeTensorRT, engine: ICudaEngine) -> None:
        super().__init__(trt)
        self._engine = engine
        self._context: IExecutionContext | None = None

    @property
    def execution_context(self) -> IExecutionContext | None:
        return self._context

    @execution_context.setter
    def execution_context(self, context: IExecutionContext) -> None:
        object.__setattr__(self, "_context", context)

    def get_engine_information(self, form: Any) -> str:
        assert form == self._trt.LayerInformationFormat.JSON
        plan = self._engine._plan
        if not plan.detailed:
            return json.dumps({"Layers": [layer["Name"] for layer in plan.layers]})
        known = self._context is not None and self._context._shape is not None
        words = {
            "HALF": ("Half", "Row major linear FP16 format"),
            "FLOAT": ("Float", "Row major linear FP32"),
        }
        layers = []
        for layer in plan.layers:
            outputs = []
            for output in layer["Outputs"]:
                short, long = words.get(output["DataType"], ("Int64", "N/A"))
                if not known:
                    short, long = "Int64", "N/A due to dynamic shapes"
                form_entry = {"DataType": short, "Format": long}
                if self._trt._version != "11.1":
                    form_entry = {"Format/Datatype": long}
                outputs.append({"Name": output["Name"], **form_entry})
            layers.append({**layer, "Outputs": outputs})
        return json.dumps({"Layers": layers})
