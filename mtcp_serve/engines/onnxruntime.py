"""The embedded engine: ONNX Runtime in this process, on CPU, CUDA or TensorRT."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, GraphTensor, Manifest, TaskSpec
from mtcp_serve.engines.base import DEFAULT_OPTIONS, Availability, EngineOptions, Provider
from mtcp_serve.engines.sessions import Sessions, calls_together, cores
from mtcp_serve.errors import BundleError, EngineUnavailableError
from mtcp_serve.kinds.base import Map
from mtcp_serve.utils.concurrency import in_thread

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
ERRORS_ONLY = 3
"""Severity of ONNX Runtime's log."""
RECORD_ASSIGNMENT = ("session.record_ep_graph_assignment_info", "1")
"""The setting of a session that `nodes_by_provider` reads the result of."""
SHORT_WAITS = {"session.force_spinning_stop": "1", "session.intra_op.spin_duration_us": "200"}
"""Settings by which the threads of a session that have nothing to do do not look for work for long.

By default they look on for some 25 ms, on cores that the thread they wait for may need, and after an
inference those who encode and send. Of the serial parts of the shipped graph three take longer than 200
microseconds: so often are they woken. ONNX Runtime before 1.26 knows the first only, for after an inference.
"""
HANDFUL = 8
"""Nodes that may run on the CPU beside a GPU without a warning."""
POOL_BYTES = 256 * 2**20
"""Address space that inferences on a CPU begin with; what they do not touch takes no memory."""
_log = logging.getLogger(__name__)


class OnnxEngine:
    """ONNX Runtime's sessions of one graph; they may be used from several tasks at a time."""

    def __init__(
        self,
        manifest: Manifest,
        session: ort.InferenceSession,
        device: str,
        parallel: int = 1,
        open_shared: Callable[[], ort.InferenceSession] | None = None,
    ) -> None:
        self.manifest = manifest
        self.device = device
        self.parallel = parallel
        self.sessions = Sessions(session, open_shared)

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions = DEFAULT_OPTIONS) -> Self:
        """Open the graph of ``bundle``; ``auto`` is CUDA where that can be started, and the CPU elsewhere.

        With ``threads`` 0, one stream has a thread per physical core; several, more throughput on a CPU and
        each slower, share the cores. With ``streams`` 0 on a CPU a call that is alone has all threads, and
        two that come together share them.

        Raises:
            BundleMismatchError: the graph is not what the manifest says.
            BundleError: ONNX Runtime cannot open the graph, or not on the provider; or the precision is bf16.
        """
        if options.precision == "bf16":
            raise BundleError(
                "the engine onnxruntime computes what the graph says, in float32; --engine openvino has bf16"
            )
        device = _choose(options.provider)
        session = open_session(bundle.graph(), device, threads_of_each(options.threads, options.streams))
        if _PROVIDERS[device] not in session.get_providers():
            problem = f"ONNX Runtime has {_PROVIDERS[device]}, but it could not be started on this machine"
            if options.provider != "auto":
                raise EngineUnavailableError(
                    f"{problem}; its own lines say why, and --provider cpu does without"
                )
            _log.warning("%s: running on the CPU", problem)
            device = "cpu"
        bundle.check_graph(*tensors(session))
        warn_of_fallbacks(session, device)
        if device != "cpu":
            return cls(bundle.manifest, session, device, options.streams or 1)
        parallel = calls_together(options.threads, options.streams)

        def open_shared() -> ort.InferenceSession:
            return open_session(bundle.verify().graph(), "cpu", beside(options.threads or cores(), parallel))

        automatic = options.streams == 0 and parallel > 1
        return cls(bundle.manifest, session, device, parallel, open_shared if automatic else None)

    @classmethod
    def available(cls) -> list[Availability]:
        """The devices that this build of ONNX Runtime knows, as ``--provider`` names them."""
        built = ort.get_available_providers()
        return [
            Availability(device, None if name in built else f"this build of ONNX Runtime has no {name}")
            for device, name in _PROVIDERS.items()
        ]

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        """See `mtcp_serve.engines.base.Engine.infer`."""
        options = ort.RunOptions()
        options.log_severity_level = ERRORS_ONLY + 1

        with self.sessions.borrow() as session:

            def run() -> list[Map]:
                names = [task.output for task in tasks]
                arrays = session.run(names, {IMAGE_TENSOR: images}, options)
                return [task.to_map(array) for task, array in zip(tasks, arrays, strict=True)]

            return await in_thread(run, on_cancel=lambda: setattr(options, "terminate", True))

    async def close(self) -> None:
        """See `mtcp_serve.engines.base.Engine.close`."""
        await self.sessions.close()


def tensors(session: ort.InferenceSession) -> tuple[list[GraphTensor], list[GraphTensor]]:
    """The inputs and outputs of an opened graph, for `mtcp_serve.bundle.bundle.Bundle.check_graph`."""
    inputs, outputs = (
        [GraphTensor(node.name, _TYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes]
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    """The operators of the nodes that each execution provider got when the graph was opened.

    Nothing where ONNX Runtime is too old to say it (before 1.24).
    """
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return {}
    found: dict[str, Counter[str]] = {}
    for part in tell():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def warn_of_fallbacks(session: ort.InferenceSession, device: str) -> None:
    """Say which nodes run on the CPU although another device was chosen: each may copy there and back."""
    if device == "cpu":
        return
    found = nodes_by_provider(session)
    fallen = found.get(_PROVIDERS["cpu"], Counter())
    level = logging.WARNING if fallen.total() > HANDFUL else logging.INFO
    _log.log(
        level,
        "%d of %d nodes run on the CPU, not on %s: %s",
        fallen.total(),
        sum(operators.total() for operators in found.values()),
        device,
        ", ".join(f"{operator} {count}" for operator, count in fallen.most_common()) or "none",
    )


def _choose(provider: Provider) -> str:
    """The device to try for a provider setting; ``auto`` tries CUDA if this onnxruntime has it."""
    available = [device for device, name in _PROVIDERS.items() if name in ort.get_available_providers()]
    if provider == "auto":
        return "cuda" if "cuda" in available else "cpu"
    if provider not in available:
        raise EngineUnavailableError(
            f"this onnxruntime cannot run on {provider}, only on {', '.join(available)}; "
            "the build for GPUs takes its place: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'mtcp-serve[gpu]'"
        )
    return provider


def threads_of_each(threads: int, streams: int) -> int:
    """``intra_op_num_threads`` for ``streams`` calls at a time; 0 leaves it to ONNX Runtime."""
    if threads or streams < 2:
        return threads
    return beside(cores(), streams)


def beside(threads: int, calls: int) -> int:
    """``intra_op_num_threads`` where ``calls`` at a time are to share ``threads``.

    The thread of each call computes beside the session's own, which all share; that one is the caller's.
    """
    return max(1, threads + 1 - calls)


@cache
def _share_memory() -> None:
    """Have the sessions of this process take their memory from one pool: what one leaves, another takes.

    Each session would keep a pool of its own at the size of its busiest moment. The pool begins as one piece
    of `POOL_BYTES`; grown piece by piece it would leave a rest in each, more with every reload.
    """
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(0, 0, POOL_BYTES, -1))


def open_session(model: Path, device: str, threads: int, pooled: bool = True) -> ort.InferenceSession:
    """The graph ``model`` on ``device``, a key of the providers above.

    On a CPU the memory of its inferences is of the pool that stays when it is closed, unless it is not to be
    ``pooled``; that of its weights is its own, and returned.

    Raises:
        BundleError: ONNX Runtime cannot open it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry(*RECORD_ASSIGNMENT)
    if device == "cpu":
        for setting, value in SHORT_WAITS.items():
            options.add_session_config_entry(setting, value)
    if device == "cpu" and pooled:
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.enable_mem_pattern = (
            False  # it takes the memory of an inference in one piece, beside the pool
        )
    wanted = _PROVIDERS[device]
    try:
        return ort.InferenceSession(
            model, options, providers=list(dict.fromkeys((wanted, _PROVIDERS["cpu"])))
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BundleError(f"ONNX Runtime cannot open {model}: {error}") from error
