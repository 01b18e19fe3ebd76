"""Checkpoints: written atomically, read without executing anything, and enough to rebuild the network."""

import os
from pathlib import Path
from typing import Any

import torch

from training.config import RunConfig, parse_config
from training.model import MTCP

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; names the file and why."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that ``path`` holds either the old or the new checkpoint, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with ``weights_only=True``.

    Raises:
        CheckpointError: missing, unreadable, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} has checkpoint format {found!r}; this version reads {FORMAT}")
    return state


def load_network(path: Path) -> tuple[MTCP, RunConfig]:
    """The network of a checkpoint in evaluation mode, with its averaged weights where there are any.

    Raises:
        CheckpointError: unreadable, or weights that do not fit its own configuration.
    """
    state = load(path)
    config = parse_config(state["config"], path.name)
    network = MTCP(config.model)
    try:
        network.load_state_dict(state.get("ema") or state["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights do not fit the configuration beside them: {error}") from error
    return network.eval(), config


def slim(path: Path, destination: Path) -> None:
    """Write the weights that :func:`load_network` would use, in fp16, without the state of the run."""
    network, config = load_network(path)
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save(destination, {"config": config.model_dump(mode="json"), "model": weights})
