"""Weights to ship as safetensors: tensors, and the configuration of the run as JSON in the file's metadata.

Any reader of the format takes the tensors; this project builds the network again from the configuration.
"""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mtcp_serve.utils.atomic import write_atomic

SUFFIX = ".safetensors"
NAME = f"model{SUFFIX}"
"""The file beside a bundle's graph."""


class WeightsFileError(ValueError):
    """A file that is not a weights file of this project; names it and why."""


def write_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    format: int,
    label_spaces: Mapping[str, Any] | None = None,
) -> None:
    """Write ``weights`` and the ``config`` of their run in checkpoint format ``format``.

    Label spaces of one's own, if there are any, are in ``label_spaces`` (`training.label_spaces.kept`).

    Raises:
        OSError: it cannot be written; names the file.
    """
    metadata = {"format": str(format), "config": json.dumps(_portable(config))}
    if label_spaces:
        metadata["label_spaces"] = json.dumps(label_spaces)
    data = save({name: value.contiguous() for name, value in weights.items()}, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` without the paths of the machine it ran on: of the folders of sources their names remain."""
    data = dict(config["data"])
    for split in ("train", "val"):
        data[split] = [source | {"root": Path(source["root"]).name} for source in data[split]]
    init = config.get("init")
    if init is not None and Path(init).is_absolute():
        init = Path(init).name
    return {**config, "data": data, "init": init}


def read_weights(path: Path) -> dict[str, Any]:
    """What `training.checkpoint.load` gives: ``format``, ``config``, ``label_spaces`` and ``model``.

    Raises:
        WeightsFileError: it is not a safetensors file, or has no configuration of this project in it.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        config, format = json.loads(metadata["config"]), int(metadata["format"])
        label_spaces = json.loads(metadata.get("label_spaces", "{}"))
    except (SafetensorError, OSError) as error:
        raise WeightsFileError(f"{path} is not a readable safetensors file: {error}") from error
    except (KeyError, ValueError) as error:
        raise WeightsFileError(
            f"{path} has no configuration in its metadata: it is of another project; only the encoder's own "
            "weights and files of 'python -m training strip' can be read"
        ) from error
    return {"format": format, "config": config, "label_spaces": label_spaces, "model": weights}


def shipped_weights(name: str) -> Path | None:
    """The weights beside the shipped bundle ``name``, if there are any."""
    if not name or Path(name).name != name:
        return None
    path = Path(str(resources.files("mtcp_serve"))) / "bundles" / name / NAME
    return path if path.is_file() else None
