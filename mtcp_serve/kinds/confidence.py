"""How sure a model is of a map: a map of probabilities beside it, asked for and given like any other."""

from typing import Any, Self

from mtcp_serve.kinds.base import Confidence, Map, MapOut, TaskSpec
from mtcp_serve.kinds.probability import ProbabilityOut, ProbabilityTask

SUFFIX = "_confidence"
"""What the name of a task and the name of its confidence differ by."""


class ConfidenceMapOut(ProbabilityOut):
    """What the PNG file of a confidence says of itself."""

    criterion: str


class ConfidenceTask(ProbabilityTask):
    """The confidence in the map of another task, for engines to give beside it.

    Its own size is that of the graph's output, which may be coarser than the maps; `resize` brings it to
    theirs, bilinearly.
    """

    name: str
    """That of the task and `SUFFIX`."""
    height: int
    width: int
    words: str
    """When a pixel of the map is right."""

    @classmethod
    def of(cls, task: TaskSpec) -> Self | None:
        """The confidence in the map of ``task``; None where the model has none."""
        return None if task.confidence is None else cls.beside(task, task.confidence)

    @classmethod
    def beside(cls, task: TaskSpec, about: Confidence) -> Self:
        """The confidence in the map of ``task`` that ``about`` tells of."""
        return cls(
            name=task.name + SUFFIX,
            output=about.output,
            title=f"How sure: {task.title or task.name}",
            height=about.height,
            width=about.width,
            words=about.criterion or task.criterion,
        )

    def refines(self, values: Map) -> bool:
        """Never: how sure a model is has no edges of its own."""
        return False

    def output_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Its own size, whatever that of the input."""
        return (self.height, self.width)

    def describe(self, values: Map, **common: Any) -> MapOut:
        """With the criterion."""
        return ConfidenceMapOut(**common, title=self.title, criterion=self.words)

    def caption(self, values: Map) -> str:
        """The mean."""
        return f"{values.mean():.0%} sure on average"
