"""What can go wrong on the way from a checkpoint to a bundle.

ExportError
└── ParityError
"""

from collections.abc import Mapping


class ExportError(Exception):
    """The network cannot become a bundle; the message says why, in terms of what the caller gave."""


class ParityError(ExportError):
    """The graph does not reproduce PyTorch; ``faults`` says for each task that failed what was measured."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__(
            "ONNX Runtime does not reproduce PyTorch: "
            + "; ".join(f"task {task!r}: {fault}" for task, fault in faults.items())
        )
        self.faults = dict(faults)
