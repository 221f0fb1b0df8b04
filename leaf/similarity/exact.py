"""Exact copies: images whose pixels, and so their hashes, are equal."""

from collections.abc import Iterable

import numpy as np


def first_copies(hashes: Iterable[str]) -> np.ndarray:
    """The first image with the same hash, for each of N hashes: int64 (N,), the image itself where it is the first."""
    first: dict[str, int] = {}
    return np.fromiter((first.setdefault(value, i) for i, value in enumerate(hashes)), np.int64)
