"""Files with changed bytes, for readers that must take or refuse each of them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from leaf.errors import LeafError


def damaged(whole: bytes, files: int, places: int = 4) -> Iterator[bytes]:
    """`whole` with `places` bytes changed, `files` times; every third is cut off somewhere, too."""
    rng = np.random.default_rng(0)
    for number in range(files):
        changed = bytearray(whole[: rng.integers(1, len(whole) + 1)]) if number % 3 == 0 else bytearray(whole)
        for place in rng.integers(0, len(changed), places):
            changed[place] = rng.integers(0, 256)
        yield bytes(changed)


def read_or_refused(read: Callable[[], Any], path: Path, contents: Iterable[bytes]) -> None:
    """Call `read` with each of `contents` as the file at `path`: it gives something or refuses it in one line."""
    for content in contents:
        path.write_bytes(content)
        line = ""
        try:
            read()
        except LeafError as error:
            line = str(error)
        assert "\n" not in line
