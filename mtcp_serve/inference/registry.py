"""The loaded models, and which of them answers which task."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mtcp_serve.bundle.manifest import ConfidenceTask, Manifest, TaskSpec
from mtcp_serve.engines.base import Engine
from mtcp_serve.errors import BundleError, InvalidParameterError, UnknownModelError, UnknownTaskError
from mtcp_serve.inference.batcher import Batcher

_LOOK_S = 0.02  # how often closing looks whether it may


@dataclass(frozen=True)
class Choice:
    """A task, and the model that is to answer it."""

    batcher: Batcher
    task: TaskSpec
    confidence: ConfidenceTask | None = None
    """How sure the model is of the map, where that is wanted too and the model has it."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model."""
        return self.batcher.engine.manifest


def with_confidence(choices: Sequence[Choice], tasks: Sequence[TaskSpec] | None = None) -> tuple[Choice, ...]:
    """``choices``, each with its confidence where its model has one.

    ``tasks`` are those whose confidence counts; the others are given back as they are. None: all.

    Raises:
        InvalidParameterError: none of them has one, or a task has the name of one.
    """
    asked = [choice for choice in choices if tasks is None or choice.task in tasks]
    found = tuple(
        replace(choice, confidence=ConfidenceTask.of(choice.task)) if choice in asked else choice
        for choice in choices
    )
    names = {choice.task.name for choice in asked}
    sure = [choice.confidence.name for choice in found if choice.confidence is not None]
    if not sure:
        manifests = {choice.manifest.name: choice.manifest for choice in asked}.values()
        others = [task.name for manifest in manifests for task in manifest.tasks if task.confidence]
        raise InvalidParameterError(
            f"there is no confidence for {', '.join(choice.task.name for choice in asked)}: "
            f"{' and '.join(manifest.name for manifest in manifests)} does not say how sure it is of that",
            f"there is one for {', '.join(others)}" if others else "leave confidence out",
        )
    for name in sure:
        if name in names:
            raise InvalidParameterError(
                f"{name} is a task and a confidence", "name the tasks or the model, so that there is only one"
            )
    return found


def task_names(text: str) -> list[str]:
    """The names in ``text``, which are separated by commas; nothing between two of them is no name.

    Raises:
        ValueError: there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("name at least one task, or leave tasks out")
    return names


def check_names(manifests: Iterable[Manifest]) -> None:
    """Check that models can be told apart.

    Raises:
        BundleError: two of them have the same name.
    """
    names: set[str] = set()
    for manifest in manifests:
        if manifest.name in names:
            raise BundleError(
                f"two of the bundles are called {manifest.name!r}; requests could not name them"
            )
        names.add(manifest.name)


def describe_engine(engine: Engine) -> str:
    """A line for people: the model, where it runs, and its tasks."""
    manifest = engine.manifest
    names = ", ".join(task.name for task in manifest.tasks)
    return f"{manifest.name} {manifest.version} on {engine.device}: {names}"


class Models:
    """Models by name, in the order in which they were given, each behind its batcher.

    Where two models have a task of the same name, the one given first answers it, unless a request names
    the other. Models of the same name cannot be told apart and are refused.

    Raises:
        BundleError: two models have the same name, or there is none.
    """

    def __init__(self, batchers: Iterable[Batcher]) -> None:
        self._leases = 0
        given = list(batchers)
        check_names(batcher.engine.manifest for batcher in given)
        self._batchers = {batcher.engine.manifest.name: batcher for batcher in given}
        if not self._batchers:
            raise BundleError("there is no bundle to serve")

    def __iter__(self) -> Iterator[Batcher]:
        """The batchers, in order."""
        return iter(self._batchers.values())

    def __getitem__(self, model: str) -> Batcher:
        """The batcher of ``model``.

        Raises:
            UnknownModelError: no loaded model has this name; the message lists those there are.
        """
        if model not in self._batchers:
            raise UnknownModelError(f"no model {model!r} is loaded; there is {', '.join(self._batchers)}")
        return self._batchers[model]

    def choices(self, model: str | None = None) -> dict[str, Choice]:
        """Every task by name: those of ``model``, or of all models, each by the first that has it."""
        batchers = list(self) if model is None else [self[model]]
        found: dict[str, Choice] = {}
        for batcher in batchers:
            for task in batcher.engine.manifest.tasks:
                found.setdefault(task.name, Choice(batcher, task))
        return found

    def select(self, names: Sequence[str] | None, model: str | None = None) -> tuple[Choice, ...]:
        """The tasks called ``names``, in that order and each once; all there are for ``None``.

        Raises:
            UnknownModelError: no loaded model is called ``model``.
            UnknownTaskError: there is no task of that name; the message lists those there are.
        """
        choices = self.choices(model)
        if names is None:
            return tuple(choices.values())
        for name in names:
            if name not in choices:
                whose = " and ".join(self._batchers) if model is None else model
                raise UnknownTaskError(f"{whose} has no task {name!r}; it has {', '.join(choices)}")
        return tuple(choices[name] for name in dict.fromkeys(names))

    async def warm_up(self) -> None:
        """Infer black images, one and a full micro-batch, so that the first request meets a warm model."""
        for batcher in self:
            manifest = batcher.engine.manifest
            black = np.zeros((batcher.max_batch, manifest.input.height, manifest.input.width, 3), np.uint8)
            await batcher.engine.infer(black[:1], manifest.tasks)
            if batcher.max_batch > 1:
                await batcher.engine.infer(black, manifest.tasks)

    @contextmanager
    def lease(self) -> Iterator[Self]:
        """Hold on to the models for the length of a request: `close` waits for the end of the block."""
        self._leases += 1
        try:
            yield self
        finally:
            self._leases -= 1

    async def close(self) -> None:
        """Wait until nobody holds on to the models, then close them."""
        while self._leases:
            await asyncio.sleep(_LOOK_S)
        for batcher in self:
            await batcher.close()
