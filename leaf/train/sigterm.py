"""Stop training after SIGTERM, which job schedulers send before they end a job."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import NoReturn

from leaf.train.distribution import process_index_and_count


@contextlib.contextmanager
def sigterm_flag() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM was received; call it after each step.

    The handler only sets a flag: an exception could interrupt TensorFlow in the middle of a step, and JAX would swallow
    it. A second SIGTERM ends the process immediately. With several processes, the handler that JAX installed when the
    processes joined chooses the step after which the function returns True in all processes.
    """
    if process_index_and_count()[1] > 1:
        from jax.experimental import multihost_utils

        steps = count(1)
        yield lambda: multihost_utils.reached_preemption_sync_point(next(steps))
        return
    received = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        received.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_after_sigterm(saved: int) -> NoReturn:
    """Exit with status 143 and a message; `saved` is the checkpoint's epoch (from 1), or 0 without a checkpoint."""
    next_run = f"the same command resumes after epoch {saved}" if saved else "there is no checkpoint"
    print(f"training: stopped by SIGTERM; {next_run}", file=sys.stderr, flush=True)
    raise SystemExit(128 + signal.SIGTERM)
