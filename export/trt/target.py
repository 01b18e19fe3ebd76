"""Where a plan is to run, which decides what TensorRT builds it."""

import re
from dataclasses import dataclass
from types import ModuleType

from export.errors import ExportError

HERE = "here"


@dataclass(frozen=True)
class Target:
    """The GPU of this machine (TensorRT), or GPUs that need not be here (TensorRT for RTX)."""

    capabilities: tuple[str, ...] = ()
    """Compute capabilities in the words of TensorRT for RTX, such as ``SM80``; none for this machine."""

    @property
    def rtx(self) -> bool:
        """Whether TensorRT for RTX builds the plan."""
        return bool(self.capabilities)

    @classmethod
    def parse(cls, text: str) -> "Target":
        """From ``here`` or ``rtx:sm80,sm89``.

        Raises:
            ExportError: it is neither.
        """
        if text == HERE:
            return cls()
        kind, _, names = text.partition(":")
        capabilities = tuple(dict.fromkeys(name.strip().upper() for name in names.split(",")))
        if kind != "rtx" or not all(re.fullmatch(r"SM\d{2,3}", name) for name in capabilities):
            raise ExportError(
                f"the target {text!r} is neither {HERE} nor rtx: and compute capabilities, "
                "as in rtx:sm80,sm89"
            )
        return cls(capabilities)

    def check(self, trt: ModuleType) -> None:
        """Whether the TensorRT for RTX ``trt`` can build for all capabilities.

        Raises:
            ExportError: one is unknown to it; those that it knows are named.
        """
        known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
        unknown = [name for name in self.capabilities if name not in known]
        if unknown:
            raise ExportError(
                f"TensorRT for RTX {trt.__version__} does not build for {', '.join(unknown)}, only for "
                f"{', '.join(sorted(known, key=lambda name: int(name[2:])))}; a machine that has such a GPU "
                f"builds its plan with --target {HERE}"
            )

    def __str__(self) -> str:
        return f"rtx:{','.join(self.capabilities).lower()}" if self.rtx else HERE
