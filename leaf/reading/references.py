"""The pictures of outliers that a person names, by number or as files in data/references."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from leaf.errors import LeafError
from leaf.reading.bounded import read_file, read_image
from leaf.reading.decode import Fit, UnreadableError

REFERENCES = Path("data/references")


def read_references(
    named: Sequence[int | str], size: int, fit: Fit = "crop", folder: Path = REFERENCES
) -> list[int | tuple[str, np.ndarray]]:
    """Image numbers as they are; file names in `folder` with their pixels (size,size,3), as ingest converts a file."""
    return [each if isinstance(each, int) else (each, _picture(each, size, fit, folder)) for each in named]


def _picture(name: str, size: int, fit: Fit, folder: Path) -> np.ndarray:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        valid = ", ".join(sorted(each.name for each in folder.glob("[!.]*"))) or "none is there yet"
        raise LeafError(f"references: {path}: no such file in {folder}; valid: {valid}")
    try:
        return read_image(read_file(path), size, fit).pixels
    except UnreadableError as error:
        raise LeafError(f"references: {path}: {error}; valid: an image file") from None
