"""What an .npz file and a folder have in common for ingest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class FractionalError(Exception):
    """A value that uint8 cannot hold came up: the images have to be read again, as float32."""


@dataclass(frozen=True)
class Rows:
    """What is known of each image before it is decoded, in the data set's order."""

    source: list[str]
    label: np.ndarray  # uint8 (N,)
    group: list[str]
    split: list[str]


@dataclass(frozen=True)
class Block:
    """Some images, (n, S, S, 3), and the places of their rows."""

    places: np.ndarray
    images: np.ndarray


class Source(Protocol):
    """A data set that can be streamed; `unreadable` fills while it is: name → why."""

    rows: Rows
    unreadable: dict[str, str]
    notes: list[str]

    def blocks(self, size: int, whole: bool) -> Iterator[Block]:
        """Give the images in order: uint8 if `whole` (raising FractionalError where that loses), else float32."""
        ...
