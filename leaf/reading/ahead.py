"""Work on files in threads, ahead of whoever takes the results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 128  # files being worked on, or done and waiting
_PART = 16  # files that a thread takes at once: turns cost as much as decoding a small one


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], threads: int
) -> Iterator[tuple[int, Result]]:
    """Places of `items` and their results, in order; `work`, in threads, gives those of a few; `AHEAD` are held."""
    parts = [items[start : start + _PART] for start in range(0, len(items), _PART)]
    ahead = AHEAD // _PART
    with ThreadPoolExecutor(threads, "ahead") as pool:
        waiting: deque[Future[Sequence[Result]]] = deque()
        try:
            for number in range(len(parts) + ahead):
                if number < len(parts):
                    waiting.append(pool.submit(work, parts[number]))
                if number >= ahead:
                    yield from enumerate(waiting.popleft().result(), (number - ahead) * _PART)
        finally:
            for future in waiting:
                future.cancel()
