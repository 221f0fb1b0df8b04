"""What follows a training: early stopping, the progress bar, DVCLive's curves."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm


@dataclass
class EarlyStopping:
    """Follows `monitor` over the epochs, as Keras's callback does; its state is kept in a checkpoint.

    An equal value is no improvement, so the earlier epoch stays the best.

    Args:
        monitor: `validation_accuracy` (higher is better) or `validation_loss` (lower is).
        patience: epochs without improvement after which training stops; 0 and 1 both stop at the first.
    """

    monitor: str
    patience: int
    best: float | None = None
    best_epoch: int = 0
    wait: int = 0

    def improved(self, row: dict[str, float]) -> bool:
        """Take the metrics of a finished epoch into account; whether it is the best so far.

        A value that is not finite is no improvement, except that the first epoch always is one.
        """
        value = float(row[self.monitor])
        if self.best is None or self._is_better(value, self.best):
            self.best, self.best_epoch, self.wait = value, int(row["epoch"]), 0
            return True
        self.wait += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether training should stop."""
        return self.wait >= max(self.patience, 1)

    def _is_better(self, value: float, best: float) -> bool:
        if not math.isfinite(best):
            return math.isfinite(value)
        return value < best if self.monitor == "validation_loss" else value > best


class ProgressBar:
    """One bar over all updates of a training; early stopping may end it before it is full.

    Args:
        epochs, steps: epochs at most, and updates in each.
        done: epochs that were finished before.
        quiet: show nothing; None: a bar on a terminal; in a log, a queue, a terminal without columns a line an epoch.
    """

    def __init__(self, epochs: int, steps: int, done: int, quiet: bool | None) -> None:
        self.epochs, self.done, self.started = epochs, done, time.monotonic()
        self.plain = quiet is None and not _columns()
        self.bar = tqdm(
            total=epochs * steps, initial=done * steps, disable=quiet or self.plain, unit="update", dynamic_ncols=True
        )

    def __enter__(self) -> "ProgressBar":
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

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """Write the line of a finished epoch, where there is no bar."""
        if self.plain:
            epoch = row["epoch"]
            left = (time.monotonic() - self.started) / (epoch - self.done) * (self.epochs - epoch)
            print(
                f"epoch {epoch}/{self.epochs}: loss {row['loss']:.4f}, validation accuracy "
                f"{row['validation_accuracy']:.3f}, at most {tqdm.format_interval(left)} left",
                file=sys.stderr,
                flush=True,
            )


def _columns() -> int:
    """Of the terminal that standard error is; 0 where it is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # ValueError: a stream that is no file
        return 0


CURVES = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate")


@contextmanager
def dvclive_callback(folder: str | Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that logs one epoch's row with DVCLive, a table per curve in `folder`; old tables are replaced.

    Nothing in the files depends on the time, so equal trainings write equal files.
    """
    from dvclive import Live  # half a second that only a training should pay

    with Live(str(folder), dvcyaml=False, save_dvc_exp=False, report=None, monitor_system=False) as live:

        def on_epoch_end(row: dict[str, Any]) -> None:
            live.step = row["epoch"]
            for name in CURVES:
                if not math.isnan(row[name]):
                    live.log_metric(name, row[name])
            live.make_summary()

        yield on_epoch_end
