"""Opening bundles with an engine, and the models of Triton servers.

A new engine is a module with a class that has `mtcp_serve.engines.base.Engine`'s methods, a ``load`` and an
``available`` like `OnnxEngine`'s, and an entry in `ENGINES`. The bundle that ``load`` is given is verified.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.engines.base import DEFAULT_OPTIONS, Availability, Engine, EngineOptions
from mtcp_serve.errors import BundleError, EngineUnavailableError


@dataclass(frozen=True)
class EngineClass:
    """Where an engine is, so that what it needs is imported only when it is used."""

    module: str
    name: str
    hint: str
    """What to install where its import fails."""
    measured: str = ""
    """How it compared with the first engine, and where; ``python -m benchmarks.engines`` measures CPUs."""

    def load(self, bundle: Bundle, options: EngineOptions) -> Engine:
        """An engine for ``bundle``.

        Raises:
            BundleMismatchError: a file's hash, or the graph, is not what the manifest says.
            EngineUnavailableError: what the engine needs is not on this machine.
            BundleError: it cannot run the bundle, or not so.
        """
        engine: Engine = self._class().load(bundle.verify(), options)
        return engine

    def available(self) -> list[Availability]:
        """The devices that the engine knows, and whether it can run on each here."""
        try:
            found: list[Availability] = self._class().available()
        except BundleError as error:
            return [Availability("", str(error))]
        return found

    def _class(self) -> Any:
        try:
            return getattr(import_module(self.module), self.name)
        except ImportError as error:
            raise EngineUnavailableError(f"{error}; {self.hint}") from error


ENGINES: Final[dict[str, EngineClass]] = {
    "onnxruntime": EngineClass(
        "mtcp_serve.engines.onnxruntime",
        "OnnxEngine",
        "pip install 'mtcp-serve[cpu]' brings ONNX Runtime, 'mtcp-serve[gpu]' its build for CUDA: one of "
        "them, not both",
        "what the others are compared with",
    ),
    "tensorrt-rtx": EngineClass(
        "mtcp_serve.engines.tensorrt_rtx",
        "TensorRtRtxEngine",
        "pip install 'mtcp-serve[cpu,rtx]' brings ONNX Runtime and its plug-in for RTX-class GPUs",
        "see docs/gpu.md",
    ),
    "openvino": EngineClass(
        "mtcp_serve.engines.openvino",
        "OpenVinoEngine",
        "pip install 'mtcp-serve[openvino]' brings OpenVINO",
        "two cores of an AMD EPYC with AVX512_BF16, without AMX: alone .77 times as fast in float32 and 1.16 "
        "times in bfloat16",
    ),
}
"""Engines that run in this process, by name; the first is ``auto``."""


def available_engines() -> dict[str, list[Availability]]:
    """For each of `ENGINES`, by name, its devices and whether it can run on them here."""
    return {name: engine.available() for name, engine in ENGINES.items()}


def load_engine(bundle: Bundle, engine: str = "auto", options: EngineOptions = DEFAULT_OPTIONS) -> Engine:
    """An engine for ``bundle`` in this process.

    Raises:
        EngineUnavailableError: what the engine needs is not on this machine.
        BundleError: there is no engine of that name, the bundle is damaged, or it cannot be run, or not like
            that.
    """
    if engine != "auto" and engine not in ENGINES:
        raise BundleError(f"there is no engine {engine!r}; there is {', '.join(ENGINES)}")
    chosen = next(iter(ENGINES)) if engine == "auto" else engine
    return ENGINES[chosen].load(bundle, options)


def load_triton(
    addresses: Sequence[str], authorities: Path | None = None, max_batch_size: int = 1
) -> list[Engine]:
    """An engine for each model that the Triton servers at ``addresses`` have; see `TritonEngine.load`.

    Raises:
        EngineUnavailableError: Triton's client is not installed.
        BundleError: no Triton answers, or with no model that can be used.
    """
    try:
        from mtcp_serve.engines.triton import TritonEngine
    except ImportError as error:
        raise EngineUnavailableError(
            f"{error}; pip install 'mtcp-serve[triton]' brings Triton's client"
        ) from error
    return [*TritonEngine.load(addresses, authorities, max_batch_size)]
