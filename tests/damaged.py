"""Generate damaged files. For each file, a reader must either return or raise a one-line error."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from leaf.errors import LeafError


def damaged(valid: bytes, files: int, places: int = 4) -> Iterator[bytes]:
    """Yield `files` copies of `valid` with `places` random bytes changed. Every third copy is also truncated."""
    rng = np.random.default_rng(0)
    for number in range(files):
        changed = bytearray(valid[: rng.integers(1, len(valid) + 1)]) if number % 3 == 0 else bytearray(valid)
        for place in rng.integers(0, len(changed), places):
            changed[place] = rng.integers(0, 256)
        yield bytes(changed)


def assert_read_or_refused(read: Callable[[], Any], path: Path, contents: Iterable[bytes]) -> None:
    """Write each item of `contents` to `path`, and check that `read` returns or raises a one-line LeafError."""
    for content in contents:
        path.write_bytes(content)
        try:
            read()
        except LeafError as error:
            message = str(error)
            assert "\n" not in message
