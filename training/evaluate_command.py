"""What ``python -m training evaluate`` does: a checkpoint, scored on its validation sources."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Subset

from training.checkpoint import load_network, moved
from training.confidence.halves import RUN, held_out_half
from training.config import ConfigError, RunConfig
from training.data import DataError, Sample, Source
from training.distributed import usable_device
from training.evaluation import Validation, validation_sources
from training.metrics import Report
from training.model import MTCP, Network
from training.report import gains, read_single_tasks
from training.trust import Trust, trusted


@dataclass(frozen=True)
class Choices:
    """What to score, and what to say of it: the options of the command."""

    single_task: Sequence[str] = ()
    per_class: bool = False
    plain: bool = False
    without_cfm: bool = False
    held_out: bool = False
    standard_errors: bool = False
    against: Path | None = None


@dataclass(frozen=True)
class Scored:
    """The metrics of a checkpoint, its settings, and what was asked for beside: Delta-MTL and trust."""

    config: RunConfig
    metrics: Report
    delta: dict[str, float] | None
    trust: Trust | None


def evaluate(path: Path, overrides: Sequence[str], choices: Choices, files: Sequence[Path] = ()) -> Scored:
    """Score the checkpoint at ``path``; the folders of ``files`` are made before that begins.

    Raises:
        CheckpointError, ConfigError, DataError, DeviceError, ReportError: it cannot be done; says why.
        OSError: a folder cannot be made.
    """
    network, config = load_network(path)
    config = moved(config, overrides)
    if not config.data.val:
        raise ConfigError(
            "data.val: the checkpoint names no validation source to score it on; give one, e.g. "
            "'data.val=[{kind: folder, root: photos, split: val}]'"
        )
    if choices.without_cfm:
        if not isinstance(network, MTCP) or network.branches.cfm is None:
            raise ConfigError("--without-cfm: the checkpoint's network has no coherence fusion")
        network.branches.cfm = None
    device = usable_device(config.device)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    against = choices.against
    other = None if against is None else (str(against), _like(config, against).to(device))
    sources = validation_sources(config.data, config.tasks)
    single = read_single_tasks(choices.single_task, config.tasks) if choices.single_task else None
    scored: Sequence[Source | Subset[Sample]] = held_out_half(sources) if choices.held_out else sources
    if choices.held_out and not any(map(len, scored)):
        raise DataError(
            f"--held-out: the first {RUN} images of each source are for calibration, and there are no others"
        )
    validation = Validation(
        scored,
        config.data.batch_size,
        device,
        config.data.workers,
        per_class=choices.per_class,
        plain=choices.plain,
    )
    trust = None
    if choices.standard_errors or other is not None:
        metrics, trust = trusted(validation, network.to(device), other)
    else:
        metrics = validation.score({path.name: network.to(device)})[path.name]
    if not metrics:
        raise DataError("data.val: no validation source has a label of any task, there is nothing to score")
    delta = None if single is None else gains(metrics, single, config.tasks)
    return Scored(config, metrics, delta, trust)


def _like(config: RunConfig, path: Path) -> Network:
    """The network of another checkpoint, which is of the same tasks.

    Raises:
        ConfigError: it is of others.
    """
    network, other = load_network(path)
    if other.tasks != config.tasks:
        raise ConfigError(f"--against {path}: its tasks or their classes are others, so nothing compares")
    return network
