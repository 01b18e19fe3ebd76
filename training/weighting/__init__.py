"""Balancing methods by name; a new method is one file and one line here."""

from collections.abc import Callable, Mapping, Sequence

from training.weighting.base import Balancer, Observation, TaskWeights
from training.weighting.engine import Balanced, Engine
from training.weighting.lps import LPS
from training.weighting.manual import Manual

BALANCERS: dict[str, Callable[..., Balancer]] = {"equal": Manual, "lps": LPS, "manual": Manual}


def build_balancer(name: str, tasks: int | Sequence[str], options: Mapping[str, object]) -> Balancer:
    """The balancer called ``name`` for the ``tasks``: their names in head order, or their number.

    Raises:
        ValueError: an unknown name, or options the method does not have.
    """
    if name not in BALANCERS:
        raise ValueError(f"unknown balancer {name!r}; known: {', '.join(sorted(BALANCERS))}")
    try:
        return BALANCERS[name](tasks, **options)
    except TypeError as error:
        raise ValueError(f"balancer {name!r}: {error}") from error


__all__ = [
    "BALANCERS",
    "LPS",
    "Balanced",
    "Balancer",
    "Engine",
    "Manual",
    "Observation",
    "TaskWeights",
    "build_balancer",
]
