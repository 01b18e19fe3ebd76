"""What Triton is told of a model: its ``config.pbtxt``, from the bundle's manifest.

Every version of a model shares one config, so all of them must take and give the same tensors. The manifest
of each version travels in the config's ``parameters`` as ``manifest.VERSION``: a client needs the endpoint
and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, MODEL_FILE, Manifest
from mtcp_serve.bundle.triton_config import parameter

Backend = Literal["onnxruntime", "tensorrt", "python"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Device = Literal["auto", "cpu", "gpu"]

CONFIG_FILE = "config.pbtxt"
PYTHON_MODEL_FILE = "model.py"
_TYPES = {"uint8": pb.TYPE_UINT8, "float32": pb.TYPE_FP32, "float16": pb.TYPE_FP16}
_KINDS = {
    "auto": pb.ModelInstanceGroup.KIND_AUTO,
    "cpu": pb.ModelInstanceGroup.KIND_CPU,
    "gpu": pb.ModelInstanceGroup.KIND_GPU,
}
_LARGEST = 2**31 - 1
_THREADS = {"onnxruntime": "intra_op_thread_count", "python": "threads"}


@dataclass(frozen=True)
class Serving:
    """How Triton runs a model.

    Raises:
        ExportError: a value that Triton cannot use; the message names it.
    """

    instances: int = 1
    """Copies of the model, on each GPU or on the CPU."""
    device: Device = "auto"
    """Where they run; ``auto`` takes GPUs if the backend and the machine have them."""
    threads: int = 0
    """CPU threads of one inference; 0 leaves it to ONNX Runtime. Not for TensorRT."""
    max_batch: int = 8
    """Images that run together at most."""
    queue_delay_us: int = 1000
    """Microseconds that an image may wait for others to run with."""
    queue_size: int = 64
    """Requests that may wait; one more is refused (gRPC status UNAVAILABLE)."""
    queue_timeout_ms: int = 10_000
    """Milliseconds after which a request that still waits is refused; a request may set its own."""
    latest: int = 0
    """Serve only so many of the newest versions; 0 serves all there are."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value > _LARGEST:
                raise ExportError(f"{field.name} is {value}, Triton takes no more than {_LARGEST}")
        for name in ("instances", "max_batch", "queue_size", "queue_timeout_ms"):
            if getattr(self, name) < 1:
                raise ExportError(f"{name} is {getattr(self, name)}, it must be at least 1")
        for name in ("threads", "queue_delay_us", "latest"):
            if getattr(self, name) < 0:
                raise ExportError(f"{name} is {getattr(self, name)}, it must not be negative")


def model_config(
    manifests: Mapping[int, Manifest], backend: Backend, serving: Serving, plans: Mapping[str, str]
) -> str:
    """The text of ``config.pbtxt`` for a model whose versions have these ``manifests``.

    ``plans`` (TensorRT only) gives the file of the plan for each compute capability, such as ``"8.9"``.

    Raises:
        ExportError: the versions differ in their tensors, or a setting does not fit the backend.
    """
    if backend == "tensorrt" and serving.device == "cpu":
        raise ExportError("TensorRT runs on GPUs only; leave out --device cpu")
    newest = manifests[max(manifests)]
    for version, manifest in manifests.items():
        if _tensors(manifest) != _tensors(newest):
            raise ExportError(
                f"all versions of a Triton model share one config, but version {version} has the tensors "
                f"{_tensors(manifest)} and version {max(manifests)} has {_tensors(newest)}; "
                "write it to another repository or give the bundle another name"
            )
    image, *outputs = _tensors(newest)
    config = pb.ModelConfig(
        name=newest.name,
        backend=backend,
        max_batch_size=serving.max_batch,
        default_model_filename=_model_file(backend, plans),
        cc_model_filenames=plans,
        input=[pb.ModelInput(name=image[0], data_type=image[1], dims=image[2])],
        output=[pb.ModelOutput(name=name, data_type=kind, dims=dims) for name, kind, dims in outputs],
        instance_group=[pb.ModelInstanceGroup(kind=_kind(backend, serving), count=serving.instances)],
        version_policy=_versions(serving.latest),
        dynamic_batching=pb.ModelDynamicBatching(
            max_queue_delay_microseconds=serving.queue_delay_us,
            default_queue_policy=pb.ModelQueuePolicy(
                timeout_action=pb.ModelQueuePolicy.REJECT,
                default_timeout_microseconds=1000 * serving.queue_timeout_ms,
                allow_timeout_override=True,
                max_queue_size=serving.queue_size,
            ),
        ),
        model_warmup=[
            pb.ModelWarmup(
                name="noise",
                batch_size=1,
                inputs={
                    image[0]: pb.ModelWarmup.Input(data_type=image[1], dims=image[2], random_data=True),
                },
            )
        ],
    )
    for version, manifest in manifests.items():
        text = manifest.model_dump_json(by_alias=True, exclude_none=True)
        config.parameters[parameter(version)].string_value = text
    if serving.threads and backend in _THREADS:
        config.parameters[_THREADS[backend]].string_value = str(serving.threads)
    return str(text_format.MessageToString(config))


def read_config(text: str) -> Any:
    """The ``ModelConfig`` message in ``text``.

    Raises:
        ExportError: it is none.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(f"no config for Triton: {error}") from error


def _tensors(manifest: Manifest) -> list[tuple[str, int, tuple[int, ...]]]:
    """Name, type and shape (without batch) of the input, then of each output."""
    size = (manifest.input.height, manifest.input.width)
    outputs = [(task.output, _TYPES[task.dtype], task.output_shape(*size)) for task in manifest.outputs]
    return [(IMAGE_TENSOR, _TYPES["uint8"], (*size, 3)), *outputs]


def _model_file(backend: Backend, plans: Mapping[str, str]) -> str:
    match backend:
        case "onnxruntime":
            return MODEL_FILE
        case "python":
            return PYTHON_MODEL_FILE
        case "tensorrt":
            return next(iter(plans.values()), "model.plan")


def _kind(backend: Backend, serving: Serving) -> int:
    return int(_KINDS["gpu" if backend == "tensorrt" else serving.device])


def _versions(latest: int) -> Any:
    if latest:
        return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=latest))
    return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
