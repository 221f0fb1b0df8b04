"""What an .npz file and a folder have in common for ingest."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol, TypeVar

import numpy as np
from xxhash import xxh3_128_hexdigest

from leaf.ingest.decode import Fit


class FractionalError(Exception):
    """A value that uint8 cannot hold came up: the images have to be read again, as float32."""


@dataclass(frozen=True)
class Rows:
    """What is known of each image before it is decoded, in the data set's order."""

    source: list[str]
    name: Sequence[str | int]  # of the class, as the data set says it; whole numbers are labels
    group: list[str]
    split: list[str]
    more: dict[str, list[str]] = field(default_factory=dict)  # further columns


@dataclass(frozen=True)
class Block:
    """Some images, (n, S, S, 3), the places of their rows, and of each as the data set holds it a hash, the size in
    pixels, (n, 2) width and height, and whether it is the first of several frames."""

    places: np.ndarray
    images: np.ndarray
    hashes: list[str]
    sizes: np.ndarray
    frames: list[bool]


class Source(Protocol):
    """A data set that can be streamed; `left_out` is not in it, `unreadable` fills while it is: name → why."""

    rows: Rows
    left_out: dict[str, str]
    unreadable: dict[str, str]
    notes: list[str]

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Give the images of the rows `places` in order, squares by `fit`: uint8 where `as_uint8`, else float32.

        Raises FractionalError where uint8 would lose something.
        """
        ...


def hashed(data: bytes | memoryview) -> str:
    """What an image is known by, whatever is made of it here: 128 bits of BLAKE2b of its file, in hex."""
    return blake2b(data, digest_size=16).hexdigest()


def pixels_hashed(data: memoryview) -> str:
    """What equal pixels have in common: 128 bits of XXH3, in hex. Unequal ones can be made to share it."""
    return xxh3_128_hexdigest(data)


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
