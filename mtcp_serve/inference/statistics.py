"""What a model has done since it was loaded."""

import time
from dataclasses import dataclass, field


@dataclass
class BatchCount:
    """Batches of one size, and the seconds that the model took for them."""

    batches: int = 0
    seconds: float = 0.0


@dataclass
class Statistics:
    """Counts of one model; seconds are summed over images, each of which counts its batch in full."""

    images: int = 0
    queue_s: float = 0.0
    infer_s: float = 0.0
    failed: int = 0
    failed_s: float = 0.0
    """What images of failed batches waited and took."""
    last: float = 0.0
    """When the last batch began, seconds since 1970."""
    by_size: dict[int, BatchCount] = field(default_factory=dict)

    def add(self, waits: list[float], seconds: float, failed: bool) -> None:
        """Count a batch whose images waited for ``waits`` seconds each, and that took ``seconds``."""
        self.last = time.time() - seconds
        if failed:
            self.failed += len(waits)
            self.failed_s += sum(waits) + len(waits) * seconds
            return
        self.images += len(waits)
        self.queue_s += sum(waits)
        self.infer_s += len(waits) * seconds
        count = self.by_size.setdefault(len(waits), BatchCount())
        count.batches += 1
        count.seconds += seconds
