"""A plan with its sidecar: what it is, what it was made from, where it runs."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from export.errors import PlanError, PlanMismatchError
from export.trt.build import Profile
from export.trt.engine import Engine
from export.trt.graph import Deformable
from export.trt.machine import Machine
from mtcp_serve.bundle.manifest import FileEntry

PLAN_FILE = "model.plan"
SIDECAR_FILE = "model.plan.json"


class Sidecar(BaseModel):
    """What is known of a plan; in a bundle it lies beside it as `SIDECAR_FILE`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan_sha256: str
    onnx: str
    """Name of the graph that it was built from."""
    onnx_sha256: str
    machine: Machine
    profile: Profile
    deformable: Deformable
    workspace_gib: float | None
    timing_cache: str | None
    """Name of the file."""
    layers: Mapping[str, int]
    """Layers by precision of what they give."""
    fp16_share: float
    """FP16 layers among the floating-point ones."""
    parity: Mapping[str, Any]
    """The plan's maps against the float32 graph's."""


def load_plan(folder: Path, trt: ModuleType, here: Machine) -> Engine:
    """Load the plan of a bundle on the machine that it was built for.

    Raises:
        PlanMismatchError: it was built for another TensorRT or GPU, or the sidecar belongs to another plan.
        PlanError: plan or sidecar cannot be read or loaded.
    """
    plan, path = folder / PLAN_FILE, folder / SIDECAR_FILE
    try:
        sidecar = Sidecar.model_validate_json(path.read_bytes())
        found = FileEntry.of(plan).sha256
        content = plan.read_bytes()
    except (OSError, ValidationError) as error:
        raise PlanError(f"{plan} and its sidecar {path.name} cannot be read: {error}") from error
    if found != sidecar.plan_sha256:
        raise PlanMismatchError(
            f"{path} describes a plan with SHA-256 {sidecar.plan_sha256}, {plan} has {found}"
        )
    sidecar.machine.check(here)
    return Engine(trt, content)
