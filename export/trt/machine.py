"""What a plan is tied to, and whether this machine can build one."""

import importlib
import subprocess
from types import ModuleType

import torch
from pydantic import BaseModel, ConfigDict

from export.errors import MachineError, PlanMismatchError
from export.trt.target import Target

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


class RtxTargets(BaseModel):
    """A TensorRT for RTX, and the compute capabilities that it built a plan for without such a GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensorrt_rtx: str
    compute_capabilities: tuple[str, ...]
    """Such as ``SM80``."""

    def check(self, here: Machine) -> None:
        """Refuse to run the plan on a machine ``here`` that it was not built for.

        Raises:
            PlanMismatchError: TensorRT for RTX differs, or the GPU's compute capability is none of these.
        """
        capability = f"SM{here.compute_capability.replace('.', '')}"
        if self.tensorrt_rtx != here.tensorrt or capability not in self.compute_capabilities:
            raise PlanMismatchError(
                f"the plan was built for {self.describe()}; this machine has TensorRT for RTX "
                f"{here.tensorrt} and {here.gpu} ({capability}); build it again with python -m export.trt "
                f"--target rtx:{capability.lower()}"
            )

    def describe(self) -> str:
        """For people, e.g. ``TensorRT for RTX 1.7.1 on SM80, SM89``."""
        return f"TensorRT for RTX {self.tensorrt_rtx} on {', '.join(self.compute_capabilities)}"


def missing(target: Target, *, running: bool) -> list[str]:
    """What this machine lacks to build a plan for ``target``, or for ``running`` one, in words."""
    lacks = []
    try:
        version = str(load_tensorrt(target).__version__)
    except ImportError:
        lacks.append(
            "TensorRT for RTX (the extra rtx; there are wheels for x86-64 Linux and Windows)"
            if target.rtx
            else "TensorRT 10.13 or newer (the Python package tensorrt)"
        )
    else:
        if not target.rtx and tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            lacks.append(f"TensorRT 10.13 or newer (here is {version})")
    if (running or not target.rtx) and not torch.cuda.is_available():
        lacks.append("an NVIDIA GPU and a PyTorch that was built for it")
    return lacks


def load_tensorrt(target: Target) -> ModuleType:
    """The Python API of the TensorRT for ``target``.

    Raises:
        ImportError: it is not installed, or its libraries do not load.
    """
    return importlib.import_module("tensorrt_rtx_bindings" if target.rtx else "tensorrt")


def this_machine(trt: ModuleType) -> Machine:
    """The facts of this machine, with the TensorRT ``trt``, and its first visible GPU.

    Raises:
        MachineError: ``nvidia-smi`` cannot be run, or failed.
    """
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(
            f"nvidia-smi, which knows the driver's version, cannot be run ({error}); "
            "in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        ) from error
    gpu = torch.cuda.get_device_properties(0)
    return Machine(
        tensorrt=trt.__version__,
        cuda=str(torch.version.cuda),
        driver=answer.stdout.split()[0],
        gpu=gpu.name,
        compute_capability=f"{gpu.major}.{gpu.minor}",
    )
