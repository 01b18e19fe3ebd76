"""Checkpoints: written atomically, read without executing anything, and enough to rebuild the network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch

from mtcp_serve.utils.atomic import atomic_file
from training.config import ConfigError, RunConfig, override, parse_config
from training.label_spaces import LabelSpaceError
from training.label_spaces.kept import from_plain, to_plain
from training.logit_adjustment import StrengthError, Strengths, undo_class_weights
from training.model import Network, build_network
from training.weights_file import SUFFIX, WeightsFileError, read_weights, write_weights

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; names the file and why."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that ``path`` holds either the old or the new checkpoint, never half of one.

    Raises:
        OSError: it cannot be written; names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_file(path) as file:
            torch.save({"format": FORMAT, **state}, file)
    except RuntimeError as error:  # what torch makes of a full disk; the file system's word is its context
        why = error.__context__
        if not isinstance(why, OSError):
            raise
        raise OSError(why.errno, why.strerror, str(path)) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with ``weights_only=True``, or what `strip` wrote as safetensors.

    Raises:
        CheckpointError: missing, unreadable, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if path.suffix == SUFFIX:
        return _checked(path, _read_weights(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own words advise to switch its safety off
        raise CheckpointError(
            f"{path} is not a readable checkpoint: damaged, or not what training wrote"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        why = str(error) or "it ends too early"  # of an empty file torch says nothing
        raise CheckpointError(f"{path} is not a readable checkpoint: {why}") from error
    return _checked(path, state)


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        return read_weights(path)
    except WeightsFileError as error:
        raise CheckpointError(str(error)) from error


def _checked(path: Path, state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} has checkpoint format {found!r}; this version reads {FORMAT}")
    return state


def settings(path: Path, state: Mapping[str, Any]) -> RunConfig:
    """The configuration in ``state``, which `load` read from ``path``, with the label spaces kept beside it.

    Raises:
        CheckpointError: they are damaged.
        ConfigError: the configuration cannot be used.
    """
    try:
        spaces = from_plain(state.get("label_spaces", {}))  # versions before kept none
    except LabelSpaceError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return parse_config(state["config"], path.name, spaces)


def described(config: RunConfig) -> dict[str, Any]:
    """What `settings` rebuilds ``config`` from, of plain types."""
    return {"config": config.model_dump(mode="json"), "label_spaces": to_plain(config.own_spaces)}


Weights = Literal["average", "raw", "better"]
"""Which weights of a run: the average (where there is one), the raw ones, or what validated better."""


def load_network(path: Path, weights: Weights = "average") -> tuple[Network, RunConfig]:
    """The network of a checkpoint in evaluation mode.

    Raises:
        CheckpointError: unreadable, weights that do not fit its own configuration, or ``better`` of a run
            that has not compared them.
    """
    state = load(path)
    average = _average(path, state, weights)
    config = settings(path, state)
    network = build_network(config.model)
    try:
        network.load_state_dict(state["model"] if average is None else average)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights do not fit the configuration beside them: {error}") from error
    return network.eval(), config


def moved(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The settings of a checkpoint with ``overrides``, which may not change its network.

    Raises:
        ConfigError: they do, or cannot be used.
    """
    changed = override(config, overrides) if overrides else config
    if changed.model.model_dump() != config.model.model_dump():
        raise ConfigError("model: the checkpoint's network cannot be changed, it is trained")
    return changed


def _average(path: Path, state: Mapping[str, Any], weights: Weights) -> Mapping[str, Any] | None:
    """The averaged weights, if those are meant and there are any."""
    average: Mapping[str, Any] | None = state.get("ema")
    if weights == "better" and average is not None:
        better = state.get("better")
        if better is None:
            raise CheckpointError(
                f"{path}: the run has not ended, or has not validated its weights; choose average or raw"
            )
        weights = better
    return None if weights == "raw" else average


def _class_weights(path: Path, config: RunConfig) -> dict[str, Sequence[float]]:
    """The weights that the run trained with: those a rule computed are in its checkpoint."""
    weights: dict[str, Sequence[float]] = {
        name: value for name, value in config.loss.class_weights.items() if isinstance(value, tuple)
    }
    weights.update(load(path).get("class_weights", {}))
    return weights


def strip(path: Path, destination: Path, undo: Strengths | None = None, weights: Weights = "average") -> None:
    """Write the ``weights`` of :func:`load_network` in fp16, without the state of the run.

    A ``destination`` that ends in .safetensors is written in that format (`training.weights_file`).
    ``undo`` is how much of the run's class weights to take back (`training.logit_adjustment`); None: nothing.

    Raises:
        CheckpointError: as :func:`load_network`, or there is nothing of what ``undo`` names.
    """
    network, config = load_network(path, weights)
    if undo is not None:
        try:
            undo_class_weights(network, _class_weights(path, config), undo)
        except StrengthError as error:
            raise CheckpointError(f"{path}: {error}") from error
    write_shipped(network, config, destination)


def write_shipped(network: Network, config: RunConfig, destination: Path) -> None:
    """Write the weights of ``network`` in fp16, as `strip` does."""
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    plain = described(config)
    if destination.suffix == SUFFIX:
        write_weights(destination, halves, plain["config"], FORMAT, plain["label_spaces"])
    else:
        save(destination, {**plain, "model": halves})
