"""The common interface of .npz files and folders, and an ordered parallel map that works ahead of its consumer."""

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
    """A value does not fit uint8; read the images again as float32."""


@dataclass(frozen=True)
class Rows:
    """Per-image metadata available before decoding, in data set order."""

    source: list[str]
    name: Sequence[str | int]  # class name; an int is a label
    group: list[str]
    split: list[str]
    more: dict[str, list[str]] = field(default_factory=dict)  # additional columns


@dataclass(frozen=True)
class Block:
    """A batch of n images.

    Attributes:
        places: rows of the images, int (n,).
        images: uint8 or float32 (n, S, S, 3).
        hashes: hash of each image as the data set stores it.
        sizes: width and height as stored, int (n, 2).
        frames: whether the file has several frames; this is the first.
    """

    places: np.ndarray
    images: np.ndarray
    hashes: list[str]
    sizes: np.ndarray
    frames: list[bool]


class Source(Protocol):
    """A data set that is read as a stream.

    `left_out` maps each file excluded before decoding to the reason, `unlabelled` lists the excluded files without a
    label, and `unreadable` is filled while decoding.
    """

    rows: Rows
    left_out: dict[str, str]
    unlabelled: list[str]
    unreadable: dict[str, str]
    notes: list[str]

    def blocks(self, places: np.ndarray, size: int, fit: Fit, as_uint8: bool) -> Iterator[Block]:
        """Yield the images in rows `places`, in order, as uint8 if `as_uint8`, otherwise as float32.

        Raises FractionalError if uint8 would lose a fraction.
        """
        ...


def content_hash(data: bytes | memoryview) -> str:
    """Return 128 bits of BLAKE2b in hex, which identify an image file or an array in an .npz file."""
    return blake2b(data, digest_size=16).hexdigest()


def pixel_hash(data: memoryview) -> str:
    """Return 128 bits of XXH3 in hex. It is not cryptographic: an attacker can construct collisions."""
    return xxh3_128_hexdigest(data)


Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 128  # maximum items in progress, or finished but not yet consumed
_CHUNK = 16  # items per task: submitting a task costs as much as decoding a small file


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], threads: int
) -> Iterator[tuple[int, Result]]:
    """Yield (position, result) for all items in order; `work` maps a chunk of items in a thread.

    At most `AHEAD` results wait to be consumed.
    """
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    ahead = AHEAD // _CHUNK
    with ThreadPoolExecutor(threads, "ahead") as pool:
        waiting: deque[Future[Sequence[Result]]] = deque()
        try:
            for number in range(len(chunks) + ahead):
                if number < len(chunks):
                    waiting.append(pool.submit(work, chunks[number]))
                if number >= ahead and waiting:
                    yield from enumerate(waiting.popleft().result(), (number - ahead) * _CHUNK)
        finally:
            for future in waiting:
                future.cancel()
