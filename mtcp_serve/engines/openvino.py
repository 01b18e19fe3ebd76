"""OpenVINO in this process, on the CPU, in float32 or bfloat16.

Compiled models are kept in ``$XDG_CACHE_HOME/mtcp-serve/openvino``, in a folder per version of OpenVINO,
graph and precision: from a folder that they share, OpenVINO 2026.4 may take the float32 model for the one in
bfloat16 and answer wrongly. Every opened model is compared with a reference before it serves.
"""

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, MODEL_FILE, GraphTensor, Manifest, TaskSpec
from mtcp_serve.engines.base import DEFAULT_OPTIONS, Availability, EngineOptions, Precision
from mtcp_serve.engines.figure import drawn
from mtcp_serve.engines.sessions import Sessions, calls_together, cores
from mtcp_serve.errors import BundleError, EngineUnavailableError
from mtcp_serve.kinds.base import Map
from mtcp_serve.utils.cache import cache_folder
from mtcp_serve.utils.concurrency import in_thread

# Importing OpenVINO reports the import, its version and the operating system to Google Analytics, under a
# random number that it keeps in the home folder. Where its telemetry cannot be imported, it does without.
with patch.dict(sys.modules, {} if "openvino" in sys.modules else {"openvino_telemetry": None}):
    import openvino as ov

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_TYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}
CPUINFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of x86-64, and of ARM: any of them multiplies bfloat16 natively; without, it is float32 made slower."""
LEAST_AGREEMENT = {"fp32": 0.995, "bf16": 0.3}
"""Share of the pixels whose labels must be those of the reference, on a drawing.

Unlike an image it leaves a network undecided, and bfloat16 decides otherwise in many pixels.
"""
LARGEST_ERROR = {"fp32": 0.001, "bf16": 0.75}
"""Mean absolute difference from the reference, over the reference's standard deviation (at least .05)."""
_CONTRACTIONS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
AT_ONCE = 4
"""Images in one inference. A call is cancelled between two of them only: where OpenVINO 2026.4 cancels an
inference within, the next of the same model may find the tensors of the last and fail."""
_KEPT = "kept in float32"
"""What outputs that nobody asks for are called, and a number; see `_keep_ends_in_fp32`."""
_log = logging.getLogger(__name__)


class OpenVinoEngine:
    """A graph, compiled; it may be used from several tasks at a time.

    Each inference computes every task, also those that were not asked for.
    """

    def __init__(
        self,
        manifest: Manifest,
        model: Any,
        device: str,
        parallel: int,
        open_shared: Callable[[], Any] | None = None,
    ) -> None:
        self.manifest = manifest
        self.device = device
        self.parallel = parallel
        self.sessions = Sessions(model, open_shared)
        self._outputs = {name: index for index, port in enumerate(model.outputs) for name in port.names}

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions = DEFAULT_OPTIONS) -> Self:
        """Compile the graph of ``bundle``; ``auto`` is bfloat16 where the processor has it natively.

        That is AMX or AVX512_BF16; where the maps are then not those of the reference, it is float32.

        Raises:
            BundleMismatchError: the graph is not what the manifest says.
            BundleError: OpenVINO cannot open the graph, the processor lacks bfloat16, the provider is a GPU,
                or the compiled model's maps are not those of the reference.
        """
        provider, precision = options.provider, options.precision
        if provider not in ("auto", "cpu"):
            raise BundleError(
                f"the engine openvino runs on the CPU alone; --provider {provider} is for the engine "
                "onnxruntime"
            )
        problem = bf16_problem()
        if precision == "bf16" and problem is not None:
            raise EngineUnavailableError(f"{problem}; --precision fp32 does without")
        image = drawn(bundle.manifest.input.height, bundle.manifest.input.width)
        wanted = _reference(bundle, image, options.threads)
        if precision == "auto" and problem is None:
            engine = cls._compiled(bundle, "bf16", options)
            if (fault := engine._fault(image, wanted, "bf16")) is None:
                return engine
            _log.warning("%s: running in float32", fault)
        chosen: Precision = "fp32" if precision == "auto" else precision
        engine = cls._compiled(bundle, chosen, options)
        if (fault := engine._fault(image, wanted, chosen)) is not None:
            raise BundleError(
                f"{fault}; empty {cache_folder('openvino')} and try again, or use --engine onnxruntime"
            )
        return engine

    @classmethod
    def available(cls) -> list[Availability]:
        """The CPU, and whether it has bfloat16."""
        return [Availability("cpu", None), Availability("cpu, bf16", bf16_problem())]

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        """See `mtcp_serve.engines.base.Engine.infer`; a cancelled one stops after `AT_ONCE` images."""
        with self.sessions.borrow() as model:
            return await self._run(model.create_infer_request(), images, tasks)

    async def _run(self, request: Any, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        cancelled = threading.Event()

        def run() -> list[Map]:
            parts: list[list[Map]] = []
            for start in range(0, len(images), AT_ONCE):
                if cancelled.is_set():
                    return []
                request.infer([np.ascontiguousarray(images[start : start + AT_ONCE])], share_inputs=True)
                parts.append(
                    [
                        task.to_map(request.get_output_tensor(self._outputs[task.output]).data.copy())
                        for task in tasks
                    ]
                )
            return (
                parts[0] if len(parts) == 1 else [np.concatenate(maps) for maps in zip(*parts, strict=True)]
            )

        return await in_thread(run, on_cancel=cancelled.set)

    async def close(self) -> None:
        """See `mtcp_serve.engines.base.Engine.close`."""
        await self.sessions.close()

    @classmethod
    def _compiled(cls, bundle: Bundle, precision: Precision, options: EngineOptions) -> Self:
        digest = bundle.manifest.files[MODEL_FILE].sha256[:16]
        folder = cache_folder("openvino", ov.__version__.split("-")[0], digest, precision)
        model = compile_graph(bundle.graph(), precision, options.threads, options.streams or 1, folder)
        _check_graph(bundle, model)
        parallel = calls_together(options.threads, options.streams)

        def open_shared() -> Any:
            each = max(1, (options.threads or cores()) // parallel)
            return compile_graph(bundle.verify().graph(), precision, each, parallel, folder)

        automatic = options.streams == 0 and parallel > 1
        device = f"openvino-{precision}"
        return cls(bundle.manifest, model, device, parallel, open_shared if automatic else None)

    def _fault(
        self, image: NDArray[np.uint8], wanted: dict[str, NDArray[Any]], precision: Precision
    ) -> str | None:
        """How the maps of ``image`` differ from those ``wanted``; None within the bounds above."""
        with self.sessions.borrow() as model:
            request = model.create_infer_request()
        request.infer([image])
        for task in self.manifest.outputs:
            found = request.get_output_tensor(self._outputs[task.output]).data
            if fault := difference(found, wanted[task.output], precision):
                return f"OpenVINO's {task.name} in {precision} is not that of the graph: {fault}"
        return None


def bf16_problem() -> str | None:
    """Why bfloat16 is of no use on this processor; None if it has it."""
    if CPUINFO.exists():
        if not _BF16_FLAGS & set(CPUINFO.read_text().split()):
            return "this processor has no bfloat16 (AMX or AVX512_BF16)"
    elif ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") != ov.Type.bf16:
        return "OpenVINO finds no bfloat16 in this processor (AMX or AVX512_BF16)"
    return None


def compile_graph(
    path: Path, precision: Precision, threads: int = 0, streams: int = 1, cache: Path | None = None
) -> Any:
    """The ONNX graph at ``path``, compiled for the CPU; what was compiled is kept in ``cache``.

    Raises:
        BundleError: OpenVINO cannot open the graph, or not in this precision.
    """
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads * streams,
    }
    if cache is not None:
        options["CACHE_DIR"] = str(cache)
    try:
        core = ov.Core()
        graph = core.read_model(str(path))
        if precision == "bf16":
            _keep_ends_in_fp32(graph)
        model = core.compile_model(graph, "CPU", options)
        used = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    except Exception as error:  # OpenVINO raises RuntimeError and its like
        raise BundleError(f"OpenVINO cannot open {path}: {error}") from error
    if used != _HINTS[precision]:
        raise BundleError(f"OpenVINO opens {path} in {used} instead of {precision}")
    return model


def _keep_ends_in_fp32(graph: Any) -> None:
    """Post-processing in float32, though the network is in bfloat16: its variances are small differences.

    OpenVINO keeps what follows the last contraction or resizing; so what is resized becomes an output too.
    """
    seen: set[str] = set()
    waiting = list(graph.get_results())
    resized = []
    while waiting:
        for port in waiting.pop().inputs():
            node = port.get_source_output().get_node()
            if node.get_friendly_name() in seen or node.get_type_name() in _CONTRACTIONS:
                continue
            seen.add(node.get_friendly_name())
            waiting.append(node)
            if node.get_type_name() == "Interpolate":
                resized.append(node.input_value(0))
    for number, output in enumerate(graph.add_outputs(resized) if resized else ()):
        output.get_tensor().add_names({f"{_KEPT} {number}"})


def _kept(port: Any) -> bool:
    return any(name.startswith(_KEPT) for name in port.names)


def difference(found: NDArray[Any], wanted: NDArray[Any], precision: Precision) -> str | None:
    """How a map differs from the one ``wanted``; None within `LEAST_AGREEMENT` and `LARGEST_ERROR`."""
    if found.shape != wanted.shape:
        return f"shape {list(found.shape)}, not {list(wanted.shape)}"
    if found.dtype == np.uint8:
        share = float(np.mean(found == wanted))
        least = LEAST_AGREEMENT[precision]
        return None if share >= least else f"{share:.1%} of the pixels agree, at least {least:.1%} must"
    exact = wanted.astype(np.float64)
    error = float(np.mean(np.abs(found - exact))) / max(float(exact.std()), 0.05)
    most = LARGEST_ERROR[precision]
    return None if error <= most else f"mean difference {error:.3g} of the map's deviation, at most {most}"


def _reference(bundle: Bundle, image: NDArray[np.uint8], threads: int) -> dict[str, NDArray[Any]]:
    """The graph's outputs for ``image`` by ONNX Runtime; without it by a float32 model, not cached.

    Raises:
        BundleMismatchError: the graph is not what the manifest says.
        BundleError: it cannot be opened.
    """
    names = [task.output for task in bundle.manifest.outputs]
    try:
        from mtcp_serve.engines.onnxruntime import open_session, tensors
    except ImportError:
        model = compile_graph(bundle.graph(), "fp32", threads)
        _check_graph(bundle, model)
        result = model({IMAGE_TENSOR: image})
        return {name: result[name] for name in names}
    session = open_session(bundle.graph(), "cpu", threads, pooled=False)
    bundle.check_graph(*tensors(session))
    return dict(zip(names, session.run(names, {IMAGE_TENSOR: image}), strict=True))


def _check_graph(bundle: Bundle, model: Any) -> None:
    """See `mtcp_serve.bundle.bundle.Bundle.check_graph`."""
    names = [task.output for task in bundle.manifest.outputs]
    bundle.check_graph(
        [_tensor(port, [IMAGE_TENSOR]) for port in model.inputs],
        [_tensor(port, names) for port in model.outputs if not _kept(port)],
    )


def _tensor(port: Any, names: Sequence[str]) -> GraphTensor:
    """An input or output by that of its names which the manifest knows; OpenVINO keeps inner ones too."""
    kind = port.element_type.to_string()
    name = next((name for name in names if name in port.names), "/".join(sorted(port.names)))
    shape = tuple(None if axis.is_dynamic else axis.get_length() for axis in port.partial_shape)
    return GraphTensor(name, _TYPES.get(kind, kind), shape)
