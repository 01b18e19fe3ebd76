"""Whether a run goes on from a checkpoint: which settings may differ, and which end that."""

from collections.abc import Collection
from itertools import zip_longest
from pathlib import Path
from typing import Any

from training import checkpoint
from training.config import RunConfig

MAY_DIFFER = (
    "device",
    "devices",
    "epochs",
    "minutes",
    "data.workers",
    "log_every",
    "tensorboard",
    "validate_every",
    "checkpoint_every",
    "compile",
    "cuda_graphs",
)
"""Settings that do not change what was learned so far. More ``epochs`` or ``minutes`` extend a run."""


def resumable(path: Path, config: RunConfig) -> tuple[dict[str, Any], RunConfig]:
    """The state in the checkpoint ``path`` and the settings it was made with, for a run with ``config``.

    Raises:
        CheckpointError: it is damaged, or was made by another configuration or an earlier version.
    """
    state = checkpoint.load(path)
    before = checkpoint.settings(path, state)
    if different := differences(before, config):
        raise checkpoint.CheckpointError(
            f"{path} belongs to a run with other settings ({'; '.join(different)}); choose another run "
            "folder, remove it, or train with the settings it has"
        )
    if "plan" not in state:
        raise checkpoint.CheckpointError(
            f"{path} has no state that this version resumes from; to start from its weights, set init to a "
            "copy of it"
        )
    return state, before


def differences(before: RunConfig, now: RunConfig, strict: Collection[str] = ()) -> list[str]:
    """The settings, as ``key: old -> new``, because of which ``now`` is another run than ``before``.

    Those in ``strict`` count though they are in `MAY_DIFFER`.
    """
    old, new = (_flat(config.model_dump(mode="json")) for config in (before, now))
    found = [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and (key in strict or key not in MAY_DIFFER)
    ]
    return found + _relabelled(before, now)


def _relabelled(before: RunConfig, now: RunConfig) -> list[str]:
    """What changed in the files of label spaces whose names are the same."""
    found = []
    spaces = {task.name: task.space for task in before.tasks}
    for task in now.tasks:
        old, new, path = spaces.get(task.name), task.space, now.model.tasks[task.name]
        if old is None or new is None or before.model.tasks[task.name] != path:
            continue
        for index, (was, is_now) in enumerate(zip_longest(old.labels, new.labels, fillvalue="absent")):
            if was != is_now:
                found.append(f"label {index} of {path}: {was} -> {is_now}")
                break
        else:
            for name in ("people_only", "mapped"):
                if getattr(old, name) != getattr(new, name):
                    found.append(f"{path}: {'mappings' if name == 'mapped' else name} changed")
    return found


def extends(before: RunConfig, now: RunConfig) -> bool:
    """Whether ``now`` gives a finished run ``before`` more to do."""
    if now.minutes is not None:
        return before.minutes is None or now.minutes > before.minutes
    return now.epochs > before.epochs or before.minutes is not None


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
