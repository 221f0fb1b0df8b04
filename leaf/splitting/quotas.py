"""How many images of each class a split takes, and how many groups of each size add up to that."""

import math
from collections.abc import Iterator, Mapping

import numpy as np


def images_asked(size: int | float, images: int) -> int:
    """A size as a number of images: a whole number as it is, a fraction of `images` rounded half up."""
    return size if isinstance(size, int) else math.floor(size * images + 0.5)


def apportion(total: int, counts: np.ndarray) -> np.ndarray:
    """Part `total` images over classes of `counts` images, int64 (C,), by largest remainder.

    Each class gets its share rounded up or down, and at least one where `total` and the class allow.
    """
    exact = total * counts / max(counts.sum(), 1)
    quota = np.floor(exact).astype(np.int64)
    for label in np.argsort(quota - exact, kind="stable")[: total - quota.sum()]:
        quota[label] += 1
    for label in np.flatnonzero((quota == 0) & (counts > 0)):
        richest = int(quota.argmax())
        if quota[richest] > 1:
            quota[richest] -= 1
            quota[label] += 1
    return quota


def groups_by_size(available: Mapping[int, int], target: int) -> dict[int, int]:
    """How many groups of each size to take so that their sizes add up to `target`, or as near to it as they can.

    `available` maps a group's size to the number of such groups. Among all ways to the same sum, each size is taken
    as nearly as possible in proportion to how often it occurs. A bounded knapsack over the distinct sizes, which are
    few: the reachable sums are the bits of one whole number.
    """
    sizes = sorted(available, reverse=True)
    if target <= 0 or not sizes:
        return dict.fromkeys(sizes, 0)
    reachable = _reachable_sums([(size, available[size]) for size in sizes], target + sizes[0])
    rest = _nearest_bit(reachable[0], target)
    images = sum(size * number for size, number in available.items())
    chosen = {}
    for size, smaller in zip(sizes, reachable[1:], strict=True):
        number = available[size]
        ideal = number * rest / max(images, 1)
        fitting = (n for n in _outward(ideal, min(number, rest // size)) if smaller >> (rest - n * size) & 1)
        chosen[size] = next(fitting)
        rest -= chosen[size] * size
        images -= number * size
    return chosen


def _reachable_sums(groups: list[tuple[int, int]], limit: int) -> list[int]:
    """For each position, the sums up to `limit` that the (size, number) pairs from there on reach, as bits."""
    mask = (1 << limit + 1) - 1
    sums = [1]
    for size, number in reversed(groups):
        bits, piece = sums[-1], 1
        while number > 0:  # 1, 2, 4, … groups at a time: every number of groups is a sum of such pieces
            step = min(piece, number)
            bits |= bits << step * size & mask
            number -= step
            piece *= 2
        sums.append(bits)
    return sums[::-1]


def _nearest_bit(bits: int, target: int) -> int:
    """The set bit nearest to `target`, the lower of two; bit 0 is always set."""
    below = (bits & (1 << target + 1) - 1).bit_length() - 1
    above = bits >> target + 1
    if not above:
        return below
    higher = target + (above & -above).bit_length()
    return below if target - below <= higher - target else higher


def _outward(ideal: float, highest: int) -> Iterator[int]:
    """The whole numbers from 0 to `highest`, nearest to `ideal` first."""
    low = min(math.floor(ideal), highest)
    high = low + 1
    while low >= 0 or high <= highest:
        if high > highest or (low >= 0 and ideal - low <= high - ideal):
            yield low
            low -= 1
        else:
            yield high
            high += 1
