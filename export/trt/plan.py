"""A plan with its sidecar: what it is, what it was made from, where it runs."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from export.errors import PlanError, PlanMismatchError
from export.trt.build import Profile
from export.trt.engine import Engine
from export.trt.graph import Deformable
from export.trt.header import read_header
from export.trt.machine import Machine, RtxTargets
from export.trt.network import TensorInfo
from export.trt.target import Target
from mtcp_serve.bundle.manifest import FileEntry
from mtcp_serve.errors import BundleMismatchError


class PlanFiles(NamedTuple):
    """The files of a bundle that make up a plan, and where ``parity.json`` keeps its comparison."""

    plan: str
    sidecar: str
    layers: str
    """What the inspector says of each layer; before the plan has met a GPU, what the parser made of each."""
    column: str

    @classmethod
    def of(cls, target: Target) -> "PlanFiles":
        """The files for this machine's TensorRT, or for TensorRT for RTX: a bundle may have both."""
        name, column = ("model_rtx.plan", "tensorrt_rtx") if target.rtx else ("model.plan", "tensorrt")
        return cls(name, f"{name}.json", f"{name}.layers.json", column)


class Sidecar(BaseModel):
    """What is known of a plan; in a bundle it lies beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan_sha256: str
    onnx: str
    """Name of the graph that it was built from."""
    onnx_sha256: str
    built_for: Machine | RtxTargets
    profile: Profile
    deformable: Deformable
    workspace_gib: float | None
    timing_cache: str | None
    """Name of the file."""
    tensors: tuple[TensorInfo, ...]
    """Inputs and outputs of the parsed network."""
    layers: Mapping[str, int]
    """Layers by precision of what they give."""
    fp16_share: float
    """FP16 layers among the floating-point ones."""
    parity: Mapping[str, Any] | None
    """The plan's maps against the float32 graph's; None until it has been run on a GPU."""

    @property
    def target(self) -> Target:
        """What it was built for."""
        if isinstance(self.built_for, RtxTargets):
            return Target(self.built_for.compute_capabilities)
        return Target()


def load_plan(folder: Path, trt: ModuleType, here: Machine, target: Target) -> tuple[Engine, Sidecar]:
    """Load the plan of a bundle on a machine that it was built for.

    Raises:
        BundleMismatchError: the sidecar belongs to another plan.
        PlanMismatchError: it was built by another TensorRT or for another GPU.
        PlanError: plan or sidecar cannot be read or loaded.
    """
    files = PlanFiles.of(target)
    plan, path = folder / files.plan, folder / files.sidecar
    try:
        sidecar = Sidecar.model_validate_json(path.read_bytes())
        found = FileEntry.of(plan).sha256
        content = plan.read_bytes()
    except (OSError, ValidationError) as error:
        raise PlanError(f"{plan} and its sidecar {path.name} cannot be read: {error}") from error
    if found != sidecar.plan_sha256:
        raise BundleMismatchError(
            f"{path} describes a plan with SHA-256 {sidecar.plan_sha256}, {plan} has {found}"
        )
    header = read_header(content)
    if header and header.rtx != target.rtx:
        raise PlanMismatchError(
            f"{plan} was built by {header.describe()}; --target {target} needs a plan of TensorRT "
            f"{'for RTX ' if target.rtx else ''}{trt.__version__}"
        )
    sidecar.built_for.check(here)
    return Engine(trt, content), sidecar
