"""A training run as one typed value, read from YAML with ``key=value`` overrides."""

import logging
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from training.class_weights import ClassWeightSetting, Factor, RareClassRule
from training.data import AugmentConfig, Paste, SourceConfig
from training.label_spaces import LABEL_SPACES, LabelSpace, plain_name
from training.label_spaces.kept import KeepsSpaces, context
from training.losses import MetricError
from training.model import AnyNetworkConfig, DeepLabConfig
from training.strict import Strict
from training.tasks import TASK_NAMES, Task

log = logging.getLogger(__name__)

_UNREADABLE = (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError)


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and says what to do."""


class SizeStep(Strict):
    """From epoch ``epoch`` on, train at ``height`` x ``width``."""

    epoch: int = Field(ge=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class DataConfig(Strict):
    """What the network sees."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    """Size of the network's input, in training (unless ``progressive``), validation and export."""
    train: tuple[SourceConfig, ...]
    val: tuple[SourceConfig, ...]
    batch_size: int = Field(2, gt=0)
    """Images a step, shared evenly among the devices of the run."""
    samples_per_epoch: int | None = Field(None, gt=0)
    """None: every image of weight 1 about once."""
    workers: int = Field(2, ge=0)
    augment: AugmentConfig = AugmentConfig()
    progressive: tuple[SizeStep, ...] = ()
    """Training sizes by epoch, for cheap early epochs. Paper: none."""

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """All training sizes (height, width) of a run."""
        return {self.size_at(0), *(self.size_at(step.epoch) for step in self.progressive)}

    def size_at(self, epoch: float) -> tuple[int, int]:
        """Training size (height, width) of an epoch; of a nominal one where a run has a budget."""
        size = (self.height, self.width)
        for step in sorted(self.progressive, key=lambda step: step.epoch):
            if step.epoch <= epoch:
                size = (step.height, step.width)
        return size


class LossConfig(Strict):
    """The objective (Eq. 7) around the task losses."""

    model_config = ConfigDict(allow_inf_nan=False)

    final_stride: int = Field(1, ge=1)
    intermediate_stride: int = Field(1, ge=1)
    """Losses are taken at 1/stride of the input size. Paper: 1."""
    lambda_cos: float = Field(1.0, ge=0)
    """Weight of the cosine term, which the paper names without a number."""
    scale: dict[str, Factor] = Field(default_factory=dict)
    """Constant factor by task, before balancing. Paper: 1 each."""
    lambda_geometry: float = Field(0.0, ge=0)
    """Weight of the disagreement between the depth map's surface and the normals (`training.geometry`).
    Paper: none."""
    metric_error: MetricError = "l1"
    """Error of depth in metres, ``l1`` or ``l2``. Paper: l1."""
    lovasz: dict[str, Factor] = Field(default_factory=dict)
    """By ``labels`` task, how many times the Lovász-softmax loss of its final maps (`training.lovasz`) is
    added to their cross-entropy. Paper: 0."""
    class_weights: dict[str, ClassWeightSetting] = Field(default_factory=dict)
    """By ``labels`` task the weight of each class in its cross-entropy, or the rule ``{power: 0.5, cap: 8}``
    that computes them from the training data (see `training.class_weights`). Paper: 1 each."""

    @model_validator(mode="after")
    def _known_tasks(self) -> "LossConfig":
        if unknown := set(self.scale) - set(TASK_NAMES):
            raise ValueError(f"loss.scale names unknown tasks {sorted(unknown)}")
        return self


class OptimConfig(Strict):
    """AdamW with a polynomial schedule (Sec. 4.2)."""

    model_config = ConfigDict(allow_inf_nan=False)

    lr: float = Field(5e-5, gt=0)
    encoder_lr: float | None = Field(None, gt=0)
    """Learning rate of the image encoder; None: ``lr``, as in the paper."""
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(0, ge=0)
    power: float = Field(0.9, ge=0)
    per_step: bool = False
    """Decay at each step. Paper: each epoch."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of all gradients together; None: no clipping."""
    accumulate: int = Field(1, gt=0)
    """Steps whose gradients are averaged into one update; an epoch's last update may rest on fewer. One loss
    that is not finite loses the update."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the weight average that is validated and exported, after a warm-up (`training.average`);
    None: the weights themselves."""
    train_only: tuple[str, ...] = ()
    """Regular expressions: only parameters whose names one of them is found in are trained, e.g.
    ``[branches]``; parts that are wholly kept stay in evaluation mode. Empty: all, as in the paper."""
    freeze_statistics: bool = False
    """Batch norms use the running statistics of the starting weights, in training as in evaluation, and do
    not move them: for going on with small batches. Paper: false."""
    decay_norms_and_biases: bool = False
    """Weight decay on norms, biases and other parameters of one dimension too. Paper: not said."""


class BalancerConfig(Strict):
    """The balancing method and its options."""

    name: str = "lps"
    options: dict[str, Any] = Field(default_factory=dict)
    update_interval: int = Field(1, gt=0)
    """Steps between two looks at the task gradients, for the methods that look at them. ``every`` is its old
    name, which goes with the next version."""

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and "every" in settings and "update_interval" not in settings:
            log.warning("balancer.every is now called balancer.update_interval")
            settings = {**settings, "update_interval": settings["every"]}
            del settings["every"]
        return settings


class RunConfig(KeepsSpaces, Strict):
    """Everything a run depends on. It travels in the checkpoint."""

    name: str
    model: AnyNetworkConfig
    data: DataConfig
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    balancer: BalancerConfig = BalancerConfig()
    epochs: int = Field(gt=0)
    """Length of the run; with ``minutes`` the nominal length, to which settings by epoch relate."""
    minutes: float | None = Field(None, allow_inf_nan=False)
    """Wall-clock budget, from the check of the data to the last checkpoint: the schedule follows the clock,
    and time for the validation at the end, the only one then, is kept back. None: ``epochs`` count."""
    seed: int = Field(0, ge=0)
    init: str | None = None
    """Starting weights: a name in `training.model.pretrained`, a checkpoint, or null for random ones."""
    device: str = "cpu"
    devices: int = Field(1, gt=0)
    """Processes, one per device, that share each batch (DDP); under torchrun its numbers count instead."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the network; losses, balancing and weights stay fp32. fp16 scales its gradients."""
    activation_checkpointing: bool = False
    """Compute activations of encoder and task decoders again in the backward pass: less memory, more time.
    Batch norms that train count each batch twice in their running statistics."""
    compile: str | None = None
    """A backend of ``torch.compile``, e.g. inductor, for encoder and decoders; None: not compiled."""
    cuda_graphs: bool = False
    """On a GPU, capture forward and backward pass of a step as CUDA graphs, once per training size: the host
    launches a few graphs, not every operator. Where that cannot be, a warning says why."""
    log_every: int = Field(50, gt=0)
    """Steps between two lines of a run that has no terminal, and between two points in TensorBoard. On a GPU
    losses are read back no more often; a non-finite one is noticed then."""
    tensorboard: bool = True
    """Write ``tensorboard/`` into the run folder, if the package is there."""
    validate_every: int = Field(1, gt=0)
    """Epochs between validations; the last epoch is always validated. With ``minutes`` only that."""
    checkpoint_every: int = Field(200, gt=0)
    """Steps between checkpoints within an epoch. With ``minutes`` there is one each minute."""
    max_bad_steps: int = Field(20, gt=0)
    """Consecutive steps with a non-finite loss after which the run stops."""

    @field_validator("minutes")
    @classmethod
    def _some_time(cls, minutes: float | None) -> float | None:
        if minutes is not None and minutes <= 0:
            raise ValueError(
                f"a budget must be above 0 minutes, got {minutes:g}; minutes=null trains for all epochs"
            )
        return minutes

    @model_validator(mode="after")
    def _a_weight_a_class(self) -> "RunConfig":
        classes = {task.name: task.channels for task in self.tasks if task.kind == "labels"}
        for name, weights in self.loss.class_weights.items():
            if isinstance(weights, RareClassRule) and name in classes:
                continue
            if isinstance(weights, RareClassRule):
                raise ValueError(f"loss.class_weights.{name}: the network has no such task with classes")
            if len(weights) != classes.get(name):
                raise ValueError(
                    f"loss.class_weights.{name} has {len(weights)} weights, the network's task has "
                    f"{classes.get(name, 'no')} classes"
                )
        return self

    @model_validator(mode="after")
    def _lovasz_of_labels(self) -> "RunConfig":
        labels = [task.name for task in self.tasks if task.kind == "labels"]
        for name in self.loss.lovasz:
            if name not in labels:
                raise ValueError(
                    f"loss.lovasz.{name}: the network has no such task with classes; there are "
                    f"{', '.join(labels) or 'none'}"
                )
        return self

    @model_validator(mode="after")
    def _pastes_what_it_knows(self) -> "RunConfig":
        if paste := self.data.augment.paste:
            try:
                Paste(paste, self.tasks)
            except ValueError as error:
                raise ValueError(f"data.augment.paste: {error}") from error
        return self

    @model_validator(mode="after")
    def _geometry_of_two(self) -> "RunConfig":
        if self.loss.lambda_geometry and not {"depth", "normals"} <= self.model.tasks.keys():
            raise ValueError("loss.lambda_geometry: it needs a network with the tasks depth and normals")
        return self

    @model_validator(mode="after")
    def _images_to_normalise_over(self) -> "RunConfig":
        if isinstance(self.model, DeepLabConfig) and self.data.batch_size < 2 * self.devices:
            raise ValueError(
                "data.batch_size: a network of kind deeplab normalises its image pooling over the batch and "
                "trains on at least 2 images a process"
            )
        return self

    @property
    def tasks(self) -> list[Task]:
        """The tasks of the network, in head order."""
        return self.model.task_list()

    @property
    def own_spaces(self) -> dict[str, LabelSpace]:
        """The label spaces in files of one's own that network and sources name, by their paths.

        Raises:
            LabelSpaceError: a file cannot be used.
        """
        sources = (*self.data.train, *self.data.val)
        named = [*self.model.tasks.values(), *(space for each in sources for space in each.tasks.values())]
        own = dict.fromkeys(space for space in named if space is not None and plain_name(space) != space)
        return {path: self._kept.get(path) or LABEL_SPACES[path] for path in own}


def shipped_configs(folder: str = "") -> dict[str, Path]:
    """The configs that come with the package (``folder``: below ``configs/``) by name."""
    files = (Path(str(resources.files("training"))) / "configs" / folder).glob("*.yaml")
    return {file.stem: file for file in sorted(files)}


def find_config(name: str, folder: str = "") -> Path:
    """The YAML file ``name``: a path, or the name of a config that ships with the package.

    Raises:
        ConfigError: neither exists; lists the shipped ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = shipped_configs(folder)
    if path.name.removesuffix(".yaml") in known:
        return known[path.name.removesuffix(".yaml")]
    raise ConfigError(f"no config {name!r}; give a YAML file or one of: {', '.join(known)}")


def load_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config, on top of its ``base`` if it names one, and apply overrides.

    Args:
        name: see :func:`find_config`. In the file, ``base`` is another such name, or a path beside the file.
        overrides: ``key=value`` with dotted keys, or ``~key`` to take an entry out.

    Raises:
        ConfigError: an unknown key, a wrong value, or a mandatory value left at ``???``.
    """
    path = find_config(name)
    try:
        plain = _overridden(_layered(path), overrides)
    except _UNREADABLE as error:
        raise ConfigError(f"{path.name}: {error}") from error
    plain.pop("root", None)  # only there to be interpolated
    return parse_config(plain, path.name)


def _layered(path: Path, above: tuple[Path, ...] = ()) -> DictConfig:
    settings = OmegaConf.load(path)
    if not isinstance(settings, DictConfig):
        raise ConfigError(f"{path}: not a mapping of settings")
    base = settings.pop("base", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must name another config, got {base!r}")
    beside = path.parent / base
    below = beside if beside.is_file() else find_config(base)
    if below in (path, *above):
        raise ConfigError(f"{path}: its base leads back to itself")
    merged = OmegaConf.merge(_layered(below, (path, *above)), settings)
    assert isinstance(merged, DictConfig)
    return merged


def override(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """``config`` with overrides as for :func:`load_config`, e.g. ``data.val.0.root=other/photos``.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    settings = OmegaConf.create(config.model_dump(mode="json"))
    try:
        return parse_config(_overridden(settings, overrides), "overrides", config.own_spaces)
    except _UNREADABLE as error:
        raise ConfigError(f"overrides: {error}") from error


def _overridden(settings: DictConfig, overrides: Sequence[str]) -> dict[Any, Any]:
    for key in (entry[1:] for entry in overrides if entry.startswith("~")):
        parent, _, name = key.rpartition(".")
        holder = OmegaConf.select(settings, parent) if parent else settings
        if not isinstance(holder, DictConfig) or name not in holder:
            raise ConfigError(f"~{key}: there is no such entry to take out")
        holder.pop(name)
    settings.merge_with_dotlist([entry for entry in overrides if not entry.startswith("~")])
    missing = [f"{key!s}=..." for key in settings if OmegaConf.is_missing(settings, key)]
    if missing:
        raise ConfigError(f"a value is missing; give {' '.join(missing)}")
    plain = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return plain


def parse_config(
    plain: dict[Any, Any], where: str, spaces: Mapping[str, LabelSpace] | None = None
) -> RunConfig:
    """Validate a plain mapping.

    Args:
        plain: the settings.
        where: what they are of; begins every message.
        spaces: label spaces by path that count in place of the files (`training.label_spaces.kept`).

    Raises:
        ConfigError: names every key that is wrong.
    """
    try:
        return RunConfig.model_validate(plain, context=context(spaces or {}))
    except ValidationError as error:
        lines = [": ".join(filter(None, (_key(item["loc"]), _why(item)))) for item in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from error


def _why(item: ErrorDetails) -> str:
    if item["type"] != "extra_forbidden":
        return item["msg"].removeprefix("Value error, ")
    models: set[type[BaseModel]] = {RunConfig}
    for part in item["loc"][:-1]:
        tagged = {
            model for model in models if part == getattr(model.model_fields.get("kind"), "default", None)
        }
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = tagged or _models([field.annotation for field in fields]) or models
    return f"no such setting; there are {', '.join(dict.fromkeys(n for m in models for n in m.model_fields))}"


def _models(annotations: Sequence[Any]) -> set[type[BaseModel]]:
    """The models in annotations like ``tuple[Model, ...]``, ``A | B`` and ``Annotated[...]``."""
    found: set[type[BaseModel]] = set()
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.add(annotation)
        else:
            found |= _models(get_args(annotation))
    return found


def _key(location: tuple[int | str, ...]) -> str:
    """The dotted key of a setting; pydantic puts the network's kind behind ``model``."""
    kept = (part for index, part in enumerate(location) if index != 1 or location[0] != "model")
    return ".".join(map(str, kept))
