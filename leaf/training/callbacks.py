"""Early stopping: which epoch is the best, and when waiting has been long enough."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from leaf.training.dataset import Examples


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


def figures(model: keras.Model, examples: Examples, batch_size: int) -> dict[str, float]:
    """Mean cross-entropy and accuracy of `model` on `examples`, unweighted and without label smoothing."""
    logits = ask(model, examples, batch_size)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    labels = examples.all_labels
    loss = -log_probability[np.arange(len(labels)), labels].mean()
    return {"loss": float(loss), "accuracy": float((logits.argmax(axis=1) == labels).mean())}


def ask(model: keras.Model, examples: Examples, batch_size: int) -> np.ndarray:
    """The logits for each example, (n, 2) float64; every batch is of one size, so that nothing compiles twice."""
    size = min(batch_size, len(examples))
    parts = []
    for start in range(0, len(examples), size):
        positions = np.minimum(np.arange(start, start + size), len(examples) - 1)
        parts.append(np.asarray(model.predict_on_batch(examples.take(positions)), np.float64))
    return np.concatenate(parts)[: len(examples)]


class Bar:
    """One bar over all updates of a training; early stopping may end it before it is full.

    Args:
        epochs, steps: epochs at most, and updates in each.
        done: epochs that were finished before.
        quiet: show nothing; None: show it on a terminal only.
    """

    def __init__(self, epochs: int, steps: int, done: int, quiet: bool | None) -> None:
        self.epochs = epochs
        self.bar = tqdm(total=epochs * steps, initial=done * steps, disable=quiet, unit="update", dynamic_ncols=True)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def step(self, epoch: int, loss: float, accuracy: float) -> None:
        """One more update is done; mean loss and accuracy of the epoch so far."""
        if not self.bar.disable:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.3f}", refresh=False)
        self.bar.update()


CURVES = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate")


@contextmanager
def curves(folder: str | Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that writes one epoch's row to `folder`, a table per curve; what was there is replaced.

    Nothing in the files depends on the time, so equal runs write equal files.
    """
    from dvclive import Live  # half a second that only a training should pay

    with Live(str(folder), dvcyaml=False, save_dvc_exp=False, report=None, monitor_system=False) as live:

        def follow(row: dict[str, Any]) -> None:
            live.step = row["epoch"]
            for name in CURVES:
                live.log_metric(name, row[name])
            live.make_summary()

        yield follow
