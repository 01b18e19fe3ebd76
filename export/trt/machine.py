"""What a plan is tied to, and whether this machine can build one."""

import importlib
import subprocess
from types import ModuleType

import torch
from pydantic import BaseModel, ConfigDict

from export.errors import PlanError, PlanMismatchError

OLDEST = (10, 13)
"""TensorRT that this is written against, with 11."""


class Machine(BaseModel):
    """A TensorRT and a GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensorrt: str
    cuda: str
    driver: str
    gpu: str
    compute_capability: str
    """Such as ``8.9``."""

    def check(self, here: "Machine") -> None:
        """Refuse to run a plan that was built on this machine ``here``, where it does not belong.

        Raises:
            PlanMismatchError: TensorRT, the GPU or its compute capability differ; CUDA and driver may.
        """
        tied = ("tensorrt", "gpu", "compute_capability")
        if any(getattr(self, name) != getattr(here, name) for name in tied):
            raise PlanMismatchError(
                f"the plan was built for {self.describe()}; this machine has {here.describe()}; "
                "build it here with python -m export.trt"
            )

    def describe(self) -> str:
        """For people, e.g. ``TensorRT 10.13.3 on NVIDIA L4 (compute capability 8.9)``."""
        return f"TensorRT {self.tensorrt} on {self.gpu} (compute capability {self.compute_capability})"


def missing() -> list[str]:
    """What this machine lacks to build plans, in words; nothing if it can."""
    lacks = []
    try:
        version = str(load_tensorrt().__version__)
    except ImportError:
        lacks.append("TensorRT 10.13 or newer (the Python package tensorrt)")
    else:
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            lacks.append(f"TensorRT 10.13 or newer (here is {version})")
    if not torch.cuda.is_available():
        lacks.append("an NVIDIA GPU and a PyTorch that was built for it")
    return lacks


def load_tensorrt() -> ModuleType:
    """TensorRT's Python API.

    Raises:
        ImportError: it is not installed, or its libraries do not load.
    """
    return importlib.import_module("tensorrt")


def this_machine() -> Machine:
    """The facts of this machine and its first visible GPU.

    Raises:
        PlanError: ``nvidia-smi`` cannot be run, or failed.
    """
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise PlanError(
            f"nvidia-smi, which knows the driver's version, cannot be run ({error}); "
            "in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        ) from error
    gpu = torch.cuda.get_device_properties(0)
    return Machine(
        tensorrt=load_tensorrt().__version__,
        cuda=str(torch.version.cuda),
        driver=answer.stdout.split()[0],
        gpu=gpu.name,
        compute_capability=f"{gpu.major}.{gpu.minor}",
    )
