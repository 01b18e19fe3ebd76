"""Weights of versions that had one module a task, for the network that computes all tasks at once."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from training.tasks import TASK_NAMES

if TYPE_CHECKING:
    from training.model.mtcp import MTCP

Join = Callable[[Sequence[Tensor]], Tensor]

_NAMES = [
    (r"\.mlp\.(fc[12])\.", r".\1."),
    (r"\.relative_position_bias_table$", ".positions"),
    (r"^cfm\.mix\.0\.", "cfm.mix."),
    (r"^(head|auxiliary\.\d+)\.layers\.3\.", r"\1."),
    (r"^(head|auxiliary\.\d+)\.layers\.", r"\1.hidden."),
]
"""What parts of a branch were called, and are called now."""


def _matrices(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.T for value in values])


def _heads(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.T for value in values])


def _gate(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value[..., None, None] for value in values])


def _first(values: Sequence[Tensor]) -> Tensor:
    return values[0]


def _stack(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([*values])


def _joined(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([*values])


def _hidden(values: Sequence[Tensor]) -> Tensor:
    """Hidden channels of heads; those of depth are filled up with zeros."""
    width = max(len(value) for value in values)
    return torch.cat([functional.pad(v, (0, 0) * (v.ndim - 1) + (0, width - len(v))) for v in values])


def _last(values: Sequence[Tensor]) -> Tensor:
    """Last layers of heads, of which that of depth reads fewer hidden channels."""
    rows = [value.flatten(1) for value in values]
    width = max(row.shape[1] for row in rows)
    return torch.cat([functional.pad(row, (0, width - row.shape[1])) for row in rows])


_JOINS: list[tuple[str, Join]] = [
    (r"\.num_batches_tracked$", _first),
    (r"\.(qkv|proj|fc[12]|reduction)\.weight$", _matrices),
    (r"\.positions$", _heads),
    (r"\.channel\.[02]\.weight$", _gate),
    (r"^dfpn\.weights$", _stack),
    (r"^(head|auxiliary\.\d+)\.hidden\.", _hidden),
    (r"^(head|auxiliary\.\d+)\.weight$", _last),
    ("", _joined),
]
"""How the tensors of the tasks become one, by its name: the first match counts."""


def stack_branches(network: "MTCP", state: dict[str, Any], prefix: str = "") -> None:
    """Turn weights of one module a task, where ``state`` holds such, into stacked ones, in place.

    Raises:
        RuntimeError: they are those of another set of tasks.
    """
    pattern = re.compile(rf"{re.escape(prefix)}branches\.({'|'.join(TASK_NAMES)})\.(.+)")
    old = {name: found for name in state if (found := pattern.fullmatch(name))}
    if not old:
        return
    tasks = [task.name for task in network.tasks]
    held = {found[1] for found in old.values()}
    if held != set(tasks):
        raise RuntimeError(
            f"the weights are those of the tasks {', '.join(sorted(held))}; the network has "
            f"{', '.join(tasks)}. Build a network of the same tasks, or train this one from other weights"
        )
    branches: dict[str, dict[str, Tensor]] = {task: {} for task in tasks}
    for name, found in old.items():
        branches[found[1]][_renamed(found[2])] = state.pop(name)
    stacked = {name: [branches[task].get(name) for task in tasks] for name in branches[tasks[0]]}
    for name in ("weight", "bias"):
        if f"{prefix}gates.{tasks[0]}.conv.{name}" in state:
            stacked[f"cfm.gate.{name}"] = [state.pop(f"{prefix}gates.{task}.conv.{name}") for task in tasks]
        pairs = [f"cfm.gates.{index}.conv.{name}" for index in range(len(tasks) - 1)]
        if set(pairs) & set(stacked):
            each = [stacked.pop(pair) for pair in pairs]
            stacked[f"cfm.gate.{name}"] = [gates[index] for index in range(len(tasks)) for gates in each]
    for name, values in stacked.items():
        known = [value for value in values if value is not None]
        join = next(join for pattern_, join in _JOINS if re.search(pattern_, name))
        state[f"{prefix}branches.{name}"] = join(known)


def _renamed(name: str) -> str:
    for old, new in _NAMES:
        name = re.sub(old, new, name)
    return name
