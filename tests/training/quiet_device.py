"""A dispatch mode in which the host may neither ask the device for a number nor wait for one."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKING = {
    "aten::_local_scalar_dense": "reads a number back (.item(), bool(tensor), a branch on a value)",
    "aten::nonzero": "has a shape that depends on values",
    "aten::masked_select": "has a shape that depends on values",
    "aten::_unique2": "has a shape that depends on values",
    "aten::unique_dim": "has a shape that depends on values",
    "aten::repeat_interleave.Tensor": "has a shape that depends on values",
    "aten::equal": "compares tensors on the host",
    "aten::is_nonzero": "reads a number back",
}
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_")


class DeviceAskedError(AssertionError):
    """An operator that would make the host wait for a GPU."""


class QuietDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operators that read from the device, that have data-dependent shapes, or that cross devices.

    ``operators`` counts those that compute, views aside.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name: str = function._schema.name
        why = ASKING.get(name) or ASKING.get(f"{name}.{function._overloadname}")
        if why:
            raise DeviceAskedError(f"{name} {why}")
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        masks = [value for value in tensors[1:] if value.dtype in (torch.bool, torch.uint8)]
        if name in INDEXING and masks:
            raise DeviceAskedError(f"{name} by a mask has a shape that depends on values")
        strict = name in ("aten::copy_", "aten::where")  # the others take a number from the host as it is
        devices = {value.device.type for value in tensors if value.ndim or strict}
        if name == "aten::_to_copy" and kwargs.get("device") is not None:
            devices.add(torch.device(kwargs["device"]).type)
        if len(devices) > 1:
            raise DeviceAskedError(f"{name} crosses from one device to another: {sorted(devices)}")
        if not function.is_view:
            self.operators[name] += 1
        return function(*args, **kwargs)
