"""Training result, early stopping, progress bar and DVCLive curves. This module does not import Keras."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from tqdm import tqdm

from leaf import store
from leaf.params import Params

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


def best_row(history: Sequence[Row], monitor: str) -> Row:
    """Return the earliest row with the best `validation_accuracy` (highest) or `validation_loss` (lowest).

    A non-finite value is the worst.
    """
    sign = -1 if monitor == "validation_loss" else 1
    return max(history, key=lambda row: sign * row[monitor] if math.isfinite(row[monitor]) else -math.inf)


def stops_early(history: Sequence[Row], params: Params) -> bool:
    """Return whether the last `patience` epochs (at least one) did not improve; frozen epochs are not counted."""
    if not history:
        return False
    frozen = sum(row["phase"] == 1 for row in history)
    last = max(best_row(history, params.monitor)["epoch"], frozen)
    return len(history) - last >= max(params.patience, 1)


class ProgressBar(tqdm):
    """A progress bar over at most `epochs` × `steps` updates; `done` epochs were finished before a resume.

    Without a terminal, print one line per epoch instead. If `quiet`, print nothing.
    """

    def __init__(self, epochs: int, steps: int, done: int = 0, quiet: bool = False) -> None:
        self.epochs, self.done, self.started = epochs, done, time.monotonic()
        columns = 0
        with suppress(OSError, ValueError):  # stderr is not a terminal, or not a file
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        self.plain = not quiet and not columns
        hidden = quiet or self.plain
        super().__init__(total=epochs * steps, initial=done * steps, disable=hidden, unit="update", dynamic_ncols=True)

    def step(self, epoch: int, loss: float, accuracy: float) -> None:
        """Advance the bar by one update; loss and accuracy are means over the epoch so far."""
        if not self.disable:
            self.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.3f}", refresh=False)
        self.update()

    def epoch_ended(self, row: Row) -> None:
        """Print a line for a finished epoch if stderr is not a terminal, unless `quiet`."""
        if self.plain:
            epoch = row["epoch"]
            left = (time.monotonic() - self.started) / (epoch - self.done) * (self.epochs - epoch)
            print(
                f"epoch {epoch}/{self.epochs}: loss {row['loss']:.4f}, validation accuracy "
                f"{row['validation_accuracy']:.3f}, at most {tqdm.format_interval(left)} left",
                file=sys.stderr,
                flush=True,
            )


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
