"""What the first bytes of a plan say, before any TensorRT has loaded it."""

from typing import NamedTuple

SIZE = 64
"""Bytes that TensorRT reads of a plan to tell whether it can be loaded (``Runtime.engine_header_size``)."""
_MAGIC = b"trt"
_RTX_MAJOR = 1
"""TensorRT for RTX counts from 1; the other TensorRT is beyond 10."""
_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""Those of TensorRT for RTX 1.7, in the order of their bits."""


class Header(NamedTuple):
    """The TensorRT that wrote a plan."""

    tensorrt: str
    """Its version, e.g. ``1.7.1.116``."""
    rtx: bool
    """Whether it is TensorRT for RTX."""
    capabilities: tuple[str, ...]
    """The compute capabilities that TensorRT for RTX built it for."""

    def describe(self) -> str:
        """The TensorRT in words."""
        return f"TensorRT {'for RTX ' if self.rtx else ''}{self.tensorrt}"


def read_header(plan: bytes) -> Header | None:
    """The header of a plan, of either TensorRT; None if ``plan`` is not one.

    The four bytes of the version are at offset 24 (NVIDIA/TensorRT issue 3073), after a magic number that
    ends in ``trt``. In plans of TensorRT for RTX a bit for each compute capability is at offset 32, which
    building for each alone has shown.
    """
    if len(plan) < SIZE or plan[1:4] != _MAGIC:
        return None
    version = plan[24:28]
    rtx = version[0] == _RTX_MAJOR
    bits = plan[32] if rtx else 0
    return Header(
        ".".join(map(str, version)),
        rtx,
        tuple(name for place, name in enumerate(_CAPABILITIES) if bits >> place & 1),
    )
