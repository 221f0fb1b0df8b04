"""Read leaf masks: image files that are white, or nonzero, where the leaf is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from leaf.errors import LeafError
from leaf.ingest.decode import Fit, UnreadableError
from leaf.ingest.sandbox import read_file, read_image

_MOST_INDICES = 15  # if no mask value exceeds this, the values are class indices, not gray levels


def mask_files(folder: Path, sources: Sequence[str]) -> list[Path | None]:
    """Return the mask in `folder` for each image (the same path with any suffix), or None if there is none.

    Raises:
        LeafError: if the folder is missing, or if it has files but none matches an image.
    """
    if not folder.is_dir():
        raise LeafError(f"masks: {folder}: no such folder. Use a folder of masks, which may be empty.")
    by_stem = {path.relative_to(folder).with_suffix(""): path for path in folder.rglob("[!.]*") if path.is_file()}
    found = [by_stem.get(Path(source).with_suffix("")) for source in sources]
    if by_stem and not any(found):
        raise LeafError(
            f"masks: {folder}: no file matches an image. Name masks like the images, for example "
            f"{Path(sources[0]).with_suffix('.png')}."
        )
    return found


def read_mask(path: Path, size: int, fit: Fit = "crop") -> np.ndarray:
    """Read one mask as bool (size, size), made square like its image.

    Gray levels are thresholded at half the highest value. If no value exceeds 15, or the mask has a color palette, the
    values are class indices: all except 0 are leaf. Transparent pixels are background.

    Raises:
        LeafError: if the file cannot be read.
    """
    try:
        values = read_image(read_file(path), size, fit, mask=True).pixels.max(axis=2)
    except UnreadableError as error:
        raise LeafError(f"masks: {path}: {error}. Replace it with a readable mask, white on the leaf.") from None
    highest = int(values.max())
    return values > (0 if highest <= _MOST_INDICES else highest / 2)


def read_masks(folder: Path, sources: Sequence[str], size: int, fit: Fit = "crop") -> np.ndarray:
    """Return the masks of all images, bool (N, size, size), all false for an image without a mask.

    If `folder` is empty, the shape is (0, size, size). Raises the errors of `mask_files` and `read_mask`.
    """
    files = mask_files(folder, sources)
    masks = np.zeros((len(files) if any(files) else 0, size, size), bool)
    for place, path in enumerate(files):
        if path:
            masks[place] = read_mask(path, size, fit)
    return masks


def without_leaf(folder: Path, sources: Sequence[str], masks: np.ndarray) -> list[str]:
    """Return the mask files that contain no leaf pixel after conversion to a square."""
    files = mask_files(folder, sources) if len(masks) else []
    return [str(path) for path, mask in zip(files, masks, strict=True) if path and not mask.any()]
