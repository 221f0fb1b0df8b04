"""Early stopping: which epoch is the best, and when waiting has been long enough."""

import math
from dataclasses import dataclass


@dataclass
class Patience:
    """Follows `monitor` over the epochs. A tie does not count as better, so the earlier epoch stays the best.

    Args:
        monitor: `validation_accuracy` (higher is better) or `validation_loss` (lower is).
        patience: epochs without a better value after which training stops; 0 and 1 both stop at the first.
    """

    monitor: str
    patience: int
    best: float | None = None
    best_epoch: int = 0
    wait: int = 0

    def better(self, row: dict[str, float]) -> bool:
        """Take the figures of a finished epoch into account; whether it is the best so far.

        A value that is not finite is never better, except that the first epoch is always taken.
        """
        value = float(row[self.monitor])
        if self.best is None or self._beats(value, self.best):
            self.best, self.best_epoch, self.wait = value, int(row["epoch"]), 0
            return True
        self.wait += 1
        return False

    @property
    def over(self) -> bool:
        """Whether training should stop."""
        return self.wait >= max(self.patience, 1)

    def _beats(self, value: float, best: float) -> bool:
        if not math.isfinite(best):
            return math.isfinite(value)
        return value < best if self.monitor == "validation_loss" else value > best
