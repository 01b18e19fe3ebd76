"""A network small enough to train in a test, and the settings of a run on procedural scenes."""

from training.config import RunConfig, load_config
from training.model import ModelConfig

RUN = [
    "epochs=2",
    "data.height=64",
    "data.width=96",
    "data.batch_size=2",
    "data.samples_per_epoch=8",
    "data.workers=0",
    "data.train.0.count=8",
    "data.val.0.count=2",
    "optim.warmup_steps=2",
    "tensorboard=false",
]


def tiny_run(*overrides: str) -> RunConfig:
    """The shipped ``scenes`` config, shrunk to a few steps."""
    return load_config("scenes", [*RUN, *overrides])


def tiny_model(**changes: object) -> ModelConfig:
    """The network of ``scenes`` with top-level settings changed."""
    return ModelConfig.model_validate(load_config("scenes").model.model_dump() | changes)
