"""Training result, early stopping, progress bar and DVCLive curves. This module does not import Keras."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from tqdm import tqdm

from leaf import store

Row = dict[str, Any]
Callback = Callable[[Row], None]


@dataclass
class Result:
    """The result of training; the model has the best epoch's weights.

    Each row of the history contains epoch, loss, accuracy, validation_loss, validation_accuracy, learning_rate (of the
    last update) and phase.
    """

    history: list[Row]  # one row per epoch
    best: Row  # the best epoch's row
    stopped: str  # why training ended: `early` or `epochs`; for a linear probe, `converged` or `max_iter`
    steps_per_epoch: int
    probe: dict[str, float] | None = None  # a linear probe's `strength` C and number of L-BFGS `iterations`


def loss_and_accuracy_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the mean cross-entropy and the accuracy of logits (N,C) and labels (N,)."""
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return {"loss": float(loss), "accuracy": float((logits.argmax(axis=1) == labels).mean())}


@dataclass
class EarlyStopping:
    """Early stopping like Keras's callback, with a state that can be saved in a checkpoint."""

    monitor: str  # `validation_accuracy` (higher is better) or `validation_loss` (lower is better)
    patience: int  # epochs without improvement before training stops; 0 and 1 both stop after the first
    best: float | None = None
    best_epoch: int = 0
    wait: int = 0

    def improved(self, row: Row) -> bool:
        """Update the state with a finished epoch and return whether it is the best so far.

        The first epoch always counts as the best. A later epoch with an equal or non-finite value does not.
        """
        value = float(row[self.monitor])
        if self.best is None or not math.isfinite(self.best):
            better = self.best is None or math.isfinite(value)
        else:
            better = value < self.best if self.monitor == "validation_loss" else value > self.best
        if better:
            self.best, self.best_epoch, self.wait = value, int(row["epoch"]), 0
        else:
            self.wait += 1
        return better

    @property
    def should_stop(self) -> bool:
        return self.wait >= max(self.patience, 1)


class ProgressBar(tqdm):
    """A progress bar over at most `epochs` × `steps` updates; `done` epochs were finished before a resume.

    Without a terminal, print one line per epoch instead. If `quiet`, print nothing.
    """

    def __init__(self, epochs: int, steps: int, done: int = 0, quiet: bool = False) -> None:
        self.epochs, self.done, self.started = epochs, done, time.monotonic()
        self.plain = not quiet and not _columns()
        hidden = quiet or self.plain
        super().__init__(total=epochs * steps, initial=done * steps, disable=hidden, unit="update", dynamic_ncols=True)

    def step(self, epoch: int, loss: float, accuracy: float) -> None:
        """Advance the bar by one update; loss and accuracy are means over the epoch so far."""
        if not self.disable:
            self.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.3f}", refresh=False)
        self.update()

    def epoch_ended(self, row: Row) -> None:
        """Print a line for a finished epoch if there is no bar."""
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
    """Return stderr's terminal width, or 0 if stderr is not a terminal."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # ValueError: stderr is not a file
        return 0


CURVES = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate")


@contextmanager
def dvclive_callback(folder: str | Path) -> Iterator[Callback]:
    """Yield a function that logs an epoch's row with DVCLive: one table per curve, without timestamps."""
    from dvclive import Live  # slow to import

    with Live(str(folder), dvcyaml=False, save_dvc_exp=False, report=None, monitor_system=False) as live:

        def on_epoch_end(row: Row) -> None:
            live.step = row["epoch"]
            for name in CURVES:
                if not math.isnan(row[name]):
                    live.log_metric(name, row[name])
            live.make_summary()

        yield on_epoch_end


def write_curves(folder: str | Path, row: Row) -> None:
    """Write the files of `dvclive_callback` for a single epoch without DVCLive, which takes 0.6 s to start."""
    shutil.rmtree(folder, ignore_errors=True)
    values = {name: row[name] for name in CURVES if not math.isnan(row[name])}
    files = {f"plots/metrics/{name}.tsv": f"step\t{name}\n{row['epoch']}\t{value}\n" for name, value in values.items()}
    files["metrics.json"] = json.dumps({**values, "step": row["epoch"]}, indent=4) + "\n"
    for name, text in files.items():
        with store.replacing(Path(folder, name)) as partial:
            partial.write_text(text, encoding="utf-8")
