"""SIGTERM (Slurm, spot machines, `kill`) ends a training between two steps, with its last finished epoch on disk."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM


@contextmanager
def noticing_sigterm() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether SIGTERM came.

    The signal only sets a flag: an exception raised by a handler may land inside a step, where TensorFlow is left in
    the middle of it and JAX swallows it. A second SIGTERM ends the process at once.
    """
    came = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        came.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
