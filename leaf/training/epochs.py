"""Epoch after epoch of any training: go on from its state, keep it, follow it, and leave when asked to."""

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from leaf.training.distribution import noticing_sigterm_together
from leaf.training.interrupts import STATUS
from leaf.training.progress import Bar
from leaf.training.state import Keeper, State

Row = dict[str, Any]


@dataclass
class Result:
    """What a training gave; the model itself holds the best epoch's weights.

    Attributes:
        history: one row per epoch: epoch, loss, accuracy, validation_loss, validation_accuracy, learning_rate (of
            the epoch's last update), phase.
        best: the best epoch's row.
        stopped: `early` or `epochs`.
        steps_per_epoch: updates in an epoch.
    """

    history: list[Row]
    best: Row
    stopped: str
    steps_per_epoch: int


class Run(Protocol):
    """A training under way: all that changes from epoch to epoch."""

    steps: int
    history: list[Row]

    @property
    def over(self) -> bool:
        """Whether no further epoch is to come."""

    def one_epoch(self, bar: Bar, after_step: Callable[[], None]) -> Row:
        """Train and judge one epoch; its row, which it has put into `history`."""

    def state(self) -> State:
        """Everything that `restore` needs, copied: it is written while the next epoch runs."""

    def restore(self, state: State) -> None:
        """Go on from a state."""

    def result(self) -> Result:
        """Put the best epoch's weights back, and say what the training gave."""


def run_epochs(
    run: Run, epochs: int, keeper: Keeper | None, follow: Callable[[Row], None] | None, quiet: bool | None
) -> Result:
    """Drive `run` to its end, from the state that `keeper` holds if there is one; `epochs` is the most there are.

    A state is written while the next epoch runs: flushed to a disk, it may take a tenth of a short epoch's time.

    Raises:
        SystemExit: status 143 after SIGTERM, the last finished epoch being kept.
    """
    state = keeper.load() if keeper else None
    if state:
        run.restore(state)
        print(f"training: resuming after epoch {len(run.history)} of {epochs}", file=sys.stderr, flush=True)
    if follow:
        for row in run.history:
            follow(row)
    writing: Future[None] = Future()
    writing.set_result(None)
    # Left for whatever reason, the pool ends only when the state that it writes is whole.
    with (
        noticing_sigterm_together() as stopped,
        Bar(epochs, run.steps, len(run.history), quiet) as bar,
        ThreadPoolExecutor(1) as pool,
    ):

        def after_step() -> None:
            if stopped():
                writing.result()
                _leave(len(run.history), keeper)

        while not run.over:
            row = run.one_epoch(bar, after_step)
            writing.result()  # raises what went wrong in it, a full disk for one
            if keeper:
                writing = pool.submit(keeper.save, run.state())
            if follow:
                follow(row)
        writing.result()
    return run.result()


def _leave(epoch: int, keeper: Keeper | None) -> NoReturn:
    """End the process, with a marker beside the state of the last finished `epoch`."""
    if keeper and epoch:
        keeper.mark_requeue(epoch)
    kept = f"epoch {epoch} is kept, the same command goes on from there" if keeper and epoch else "nothing is kept"
    print(f"training: stopped by SIGTERM, requeue: {kept}", file=sys.stderr, flush=True)
    raise SystemExit(STATUS)
