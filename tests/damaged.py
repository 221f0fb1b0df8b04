"""Files with changed bytes, for readers that must take or refuse each of them."""

from collections.abc import Iterator

import numpy as np


def damaged(whole: bytes, files: int, places: int = 4) -> Iterator[bytes]:
    """`whole` with `places` bytes changed, `files` times; every third is cut off somewhere, too."""
    rng = np.random.default_rng(0)
    for number in range(files):
        changed = bytearray(whole[: rng.integers(1, len(whole) + 1)]) if number % 3 == 0 else bytearray(whole)
        for place in rng.integers(0, len(changed), places):
            changed[place] = rng.integers(0, 256)
        yield bytes(changed)
