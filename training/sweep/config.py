"""A sweep as one typed value: a base config, rows of overrides, seeds."""

import re
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, model_validator

from training.config import ConfigError, RunConfig, find_config, load_config
from training.strict import Strict


class SweepConfig(Strict):
    """What a sweep runs and how it is told."""

    name: str
    config: str
    """The run config that every row starts from."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    overrides: tuple[str, ...] = ()
    """Settings of all rows, as on the command line of ``train``."""
    rows: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Label -> overrides. The first row has all tasks."""
    single_task: dict[str, str] = Field(default_factory=dict)
    """Task -> the row that trains it alone; with all tasks there, rows get a Delta-MTL against them."""
    reference: str | None = None
    """The row whose Delta-MTL the others' is compared with, seed by seed."""
    test: tuple[str, ...] = ()
    """Overrides that turn the validation sources into those to report on; empty: validation only."""
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    """The paper's values of the headline metrics by row and task, in the units of ours."""

    @model_validator(mode="after")
    def _rows_exist(self) -> "SweepConfig":
        named = [*self.single_task.values(), *self.published, *filter(None, [self.reference])]
        if unknown := [row for row in named if row not in self.rows]:
            raise ValueError(f"single_task, published or reference name rows that are not there: {unknown}")
        slugs = [slug(row) for row in self.rows]
        if len(set(slugs)) < len(slugs):
            raise ValueError(
                "two rows would share a folder; give them names that differ in letters or digits"
            )
        return self

    def run_config(self, row: str, seed: int, overrides: tuple[str, ...] = ()) -> RunConfig:
        """The settings of one run; ``overrides`` come last.

        Raises:
            ConfigError: a wrong setting.
        """
        own = (f"seed={seed}", f"name={self.name}-{slug(row)}")
        return load_config(self.config, [*self.overrides, *self.rows[row], *own, *overrides])


def slug(row: str) -> str:
    """A row's label as a folder name."""
    return re.sub(r"[^a-z0-9.]+", "-", row.lower()).strip("-")


def load_sweep(name: str) -> SweepConfig:
    """The sweep in a YAML file, or the shipped one of that name.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    path = find_config(name, "sweeps")
    return _parse(path)


def _parse(path: Path) -> SweepConfig:
    try:
        return SweepConfig.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name}: {error}") from error
