"""A .npy file that is written from front to back, whose length is known only at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from leaf.store import replacing


@dataclass
class ArrayFile:
    """An array on disk that grows by its first axis."""

    file: BinaryIO
    item: tuple[int, ...]
    dtype: np.dtype
    count: int = 0

    def append(self, block: np.ndarray) -> None:
        """Write more items, (n, *item) of the array's dtype."""
        if block.dtype != self.dtype or block.shape[1:] != self.item:
            raise ValueError(f"{block.dtype} {block.shape} into {self.dtype} {self.item}")
        self.file.write(np.ascontiguousarray(block).data)
        self.count += len(block)

    def write_header(self, count: int) -> None:
        """Write the header of `count` items at the file's start. Its length is the same for any count."""
        self.file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (count, *self.item)}
        np.lib.format.write_array_header_1_0(self.file, header)


@contextmanager
def growing_array(path: str | Path, item: tuple[int, ...], dtype: np.dtype) -> Iterator[ArrayFile]:
    """Give an ArrayFile whose items have the shape `item`; `path` appears whole when the block ends, or not at all."""
    with replacing(path) as partial:
        try:
            with partial.open("wb") as file:
                array = ArrayFile(file, item, dtype)
                array.write_header(0)
                yield array
                array.write_header(array.count)
        except OSError as error:
            if error.filename is None:  # a failed write does not name its file
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise
