"""The curves of a training as DVCLive's tables, which `dvc plots` and `dvc exp show` read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
