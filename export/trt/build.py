"""From an ONNX graph to a serialized plan."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from export.errors import ExportError, PlanError
from export.trt.header import read_header
from export.trt.network import Layer, TensorInfo, describe_layers, describe_tensors, logger, parse
from export.trt.target import Target
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, InputSpec
from mtcp_serve.utils.atomic import write_atomic


class Profile(NamedTuple):
    """Batch sizes that a plan takes, and the one that it is tuned for."""

    min: int
    opt: int
    max: int

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """From ``MIN,OPT,MAX``.

        Raises:
            ExportError: it is not three whole numbers with 1 <= MIN <= OPT <= MAX.
        """
        try:
            profile = cls(*map(int, text.split(",")))
        except (TypeError, ValueError):
            profile = cls(0, 0, 0)
        if not 1 <= profile.min <= profile.opt <= profile.max:
            raise ExportError(f"the profile {text!r} is not MIN,OPT,MAX with 1 <= MIN <= OPT <= MAX")
        return profile


@dataclass(frozen=True)
class Built:
    """A serialized plan, and the network that the parser made of its graph."""

    plan: bytes
    layers: list[Layer]
    tensors: tuple[TensorInfo, ...]


def build_plan(
    trt: ModuleType,
    graph: Path,
    image: InputSpec,
    profile: Profile,
    *,
    workspace_gib: float | None,
    timing_cache: Path | None,
    target: Target,
) -> Built:
    """Build a strongly typed engine: TensorRT computes each node in the precision that the graph states.

    Args:
        trt: TensorRT 10.13 or 11, or TensorRT for RTX.
        graph: from `export.trt.graph.for_tensorrt`.
        image: height and width.
        profile: batch sizes.
        workspace_gib: most memory that a layer may use beside its tensors; TensorRT's choice if None.
        timing_cache: read if it is there, then written; it makes the next build faster. TensorRT for RTX
            keeps none.
        target: this machine, or the compute capabilities that TensorRT for RTX builds for.

    Raises:
        PlanError: TensorRT cannot read the graph or build it, with what it said, or does not know a compute
            capability; or the timing cache cannot be read or written, or was written by another TensorRT or
            GPU.
    """
    if target.rtx:
        target.check(trt)
        if timing_cache is not None:
            raise PlanError(
                "TensorRT for RTX times nothing when it builds and keeps no timing cache; leave it out"
            )
    known = b"" if timing_cache is None else _timings(timing_cache)
    builder = trt.Builder(logger(trt))
    network = parse(trt, builder, graph)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; its products have no more digits than a half's
    if workspace_gib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(workspace_gib * 2**30))
    shapes = builder.create_optimization_profile()
    shapes.set_shape(IMAGE_TENSOR, *((batch, image.height, image.width, 3) for batch in profile))
    if config.add_optimization_profile(shapes) < 0:
        raise PlanError(f"TensorRT {trt.__version__} refused the profile {','.join(map(str, profile))}")
    if target.rtx:
        config.num_compute_capabilities = len(target.capabilities)
        for index, name in enumerate(target.capabilities):
            config.set_compute_capability(trt.ComputeCapability.__members__[name], index)
    if timing_cache is not None:
        cache = config.create_timing_cache(known)
        if cache is None:
            raise PlanError(f"{timing_cache} is not a timing cache; choose another file")
        if not config.set_timing_cache(cache, False):
            raise PlanError(f"{timing_cache} was written by another TensorRT or GPU; choose another file")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PlanError(f"TensorRT {trt.__version__} cannot build {graph}; its log above says why")
    if timing_cache is not None:
        try:
            write_atomic(timing_cache, bytes(memoryview(config.get_timing_cache().serialize())))
        except OSError as error:
            raise PlanError(f"the timing cache {timing_cache} cannot be written: {error}") from error
    content = bytes(memoryview(plan))
    header = read_header(content)
    if target.rtx and (header is None or set(header.capabilities) != set(target.capabilities)):
        raise PlanError(f"the plan is for {header and header.capabilities}, not for {target.capabilities}")
    return Built(content, describe_layers(network), describe_tensors(network))


def _timings(path: Path) -> bytes:
    """What the timing cache holds; it is made if it is not there, for it must be writable after the build."""
    try:
        path.open("ab").close()
        return path.read_bytes()
    except OSError as error:
        raise PlanError(f"the timing cache {path} cannot be read and written: {error}") from error
