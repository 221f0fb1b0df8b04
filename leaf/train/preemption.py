"""Handle SIGTERM during training: finish the step, keep the last epoch's checkpoint and exit with status 143."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import NoReturn

from leaf.train.checkpoint import CheckpointFile
from leaf.train.distribution import process_index_and_count

SIGTERM_STATUS = 128 + signal.SIGTERM


@contextmanager
def sigterm_flag() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM was received; call it after each step.

    The handler only sets a flag, because raising an exception in it can interrupt TensorFlow in the middle of a step,
    and JAX swallows the exception. A second SIGTERM ends the process immediately. With several processes, the function
    returns True in all of them after the same step, chosen by JAX's handler, which was installed when they joined.
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

    if threading.current_thread() is not threading.main_thread():  # only the main thread can set handlers
        yield received.is_set
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_after_sigterm(epoch: int, checkpoint_file: CheckpointFile | None) -> NoReturn:
    """Exit with status 143. If the checkpoint of `epoch` (from 1) exists, mark the training for requeueing."""
    kept = "no epoch is kept"
    if checkpoint_file and epoch:
        checkpoint_file.mark_requeue(epoch)
        kept = f"epoch {epoch} is kept, the same command resumes there"
    print(f"training: stopped by SIGTERM, requeue: {kept}", file=sys.stderr, flush=True)
    raise SystemExit(SIGTERM_STATUS)
