"""What can go wrong on the way from a checkpoint to a bundle.

ExportError
├── ParityError
└── PlanError
    └── PlanMismatchError
"""

from collections.abc import Mapping


class ExportError(Exception):
    """The network cannot become a bundle; the message says why, in terms of what the caller gave."""


class ParityError(ExportError):
    """Maps differ from what they should be; ``faults`` says for each task that failed what was measured."""

    def __init__(self, faults: Mapping[str, str], claim: str) -> None:
        super().__init__(
            f"{claim}: " + "; ".join(f"task {task!r}: {fault}" for task, fault in faults.items())
        )
        self.faults = dict(faults)


class PlanError(ExportError):
    """TensorRT refused the graph or the plan, or built something else than was asked for."""


class PlanMismatchError(PlanError):
    """A plan was built for another TensorRT or GPU than this machine has; the message names both."""
