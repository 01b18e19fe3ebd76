"""NVIDIA's TensorRT for RTX in this process, as a plug-in provider of ONNX Runtime, for RTX-class GPUs.

Engines are compiled from the graph when the bundle is opened; what was compiled is kept in a cache folder
(``$XDG_CACHE_HOME/mtcp-serve/tensorrt-rtx``), so that only the first start on a machine takes long.
"""

import logging
from typing import Any, Self

import onnxruntime as ort
import onnxruntime_ep_nv_tensorrt_rtx as plugin

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, MODEL_FILE, InputSpec
from mtcp_serve.engines.base import DEFAULT_OPTIONS, Availability, EngineOptions
from mtcp_serve.engines.onnxruntime import (
    ERRORS_ONLY,
    RECORD_ASSIGNMENT,
    OnnxEngine,
    tensors,
    warn_of_fallbacks,
)
from mtcp_serve.errors import BundleError, EngineUnavailableError
from mtcp_serve.utils.cache import cache_folder

PREPARED_FILE = "model_trt.onnx"
"""The graph as TensorRT takes it whole, in FP16; ``python -m export.trt`` adds it to a bundle."""
LARGEST_BATCH = 8
_log = logging.getLogger(__name__)


class TensorRtRtxEngine(OnnxEngine):
    """One ONNX Runtime session whose graph TensorRT for RTX runs."""

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions = DEFAULT_OPTIONS) -> Self:
        """Open the graph of ``bundle`` on the first RTX-class GPU; the threads are those beside it.

        Raises:
            BundleMismatchError: the graph is not what the manifest says.
            BundleError: there is no such GPU here, ONNX Runtime cannot open the graph on it, or a precision
                or several streams are asked for.
        """
        if options.provider not in ("auto", "cuda"):
            raise BundleError(
                "the engine tensorrt-rtx runs on an NVIDIA GPU alone; "
                f"--provider {options.provider} is for the engine onnxruntime"
            )
        if options.precision != "auto" or options.streams > 1:
            raise BundleError(
                "the engine tensorrt-rtx computes in the precision of the graph, one batch at a time; leave "
                "out --precision and --streams"
            )
        device = _device()
        prepared = PREPARED_FILE in bundle.manifest.files
        if not prepared:
            _log.warning(
                "the bundle %s has no %s: parts of its graph run on the CPU; python -m export.trt adds it",
                bundle.folder,
                PREPARED_FILE,
            )
        model = bundle.graph(PREPARED_FILE if prepared else MODEL_FILE)
        session_options = ort.SessionOptions()
        session_options.intra_op_num_threads = options.threads
        session_options.log_severity_level = ERRORS_ONLY
        session_options.add_session_config_entry(*RECORD_ASSIGNMENT)
        session_options.add_provider_for_devices([device], provider_options(bundle.manifest.input))
        try:
            session = ort.InferenceSession(model, session_options)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise BundleError(f"TensorRT for RTX cannot open {model}: {error}") from error
        bundle.check_graph(*tensors(session))
        warn_of_fallbacks(session, "tensorrt-rtx")
        return cls(bundle.manifest, session, "tensorrt-rtx")

    @classmethod
    def available(cls) -> list[Availability]:
        """See `mtcp_serve.engines.onnxruntime.OnnxEngine.available`."""
        try:
            _device()
        except BundleError as error:
            return [Availability("tensorrt-rtx", str(error))]
        return [Availability("tensorrt-rtx", None)]


def provider_options(image: InputSpec) -> dict[str, str]:
    """The batches that engines are compiled for, and where they are kept."""
    shapes = {
        name: f"{IMAGE_TENSOR}:{batch}x{image.height}x{image.width}x3"
        for name, batch in (("min", 1), ("opt", 1), ("max", LARGEST_BATCH))
    }
    options = {f"nv_profile_{name}_shapes": shape for name, shape in shapes.items()}
    folder = cache_folder("tensorrt-rtx")
    if folder is None:
        return options
    return {**options, "nv_runtime_cache_path": str(folder)}


def _device() -> Any:
    """The first GPU that the plug-in takes.

    Raises:
        EngineUnavailableError: there is none, or no driver for one.
    """
    name = plugin.get_ep_name()
    if not (found := _devices(name)):
        try:
            ort.register_execution_provider_library(name, plugin.get_library_path())
        except Exception as error:
            raise EngineUnavailableError(
                "TensorRT for RTX cannot be loaded here; it needs an RTX-class NVIDIA GPU (Ampere or newer) "
                f"and its driver: {error}"
            ) from error
        found = _devices(name)
    if not found:
        raise EngineUnavailableError("there is no GPU here that TensorRT for RTX runs on (Ampere or newer)")
    return found[0]


def _devices(name: str) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == name]
