"""Ingest: stream a data set once, write its images as one array and give a table about them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

import cv2
import numpy as np

from leaf.errors import LeafError
from leaf.ingest.decode import Fit
from leaf.ingest.decode_cache import DecodeCache
from leaf.ingest.files import Links
from leaf.ingest.folder import FolderSource
from leaf.ingest.label_tables import read_labels
from leaf.ingest.layout import Wanted, check_present, nfc, resolve
from leaf.ingest.npz import NpzSource
from leaf.ingest.source import Block, FractionalError, Source, pixels_hashed
from leaf.store import replacing

if TYPE_CHECKING:
    import pandas as pd

FIRST_FRAME = "first_frame"  # the flag of an image that is the first of several in its file


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


@dataclass(frozen=True)
class Ingested:
    """What was read.

    index: image, source, label, group, split, hash (of the pixels as stored), file_hash (of the file; of the array in
    an .npz), flags, width and height (as the data set holds it, in pixels), and site, crop, camera, date where a table
    has them. classes: label, name, images. unreadable: each image that was left out: file, reason. notes: what else to
    say, a line each.
    """

    index: "pd.DataFrame"
    classes: "pd.DataFrame"
    unreadable: "pd.DataFrame"
    notes: list[str]
    dtype: np.dtype


class Progress(Protocol):
    """What a progress bar has to do here, as tqdm does."""

    def update(self, n: int) -> Any:
        """Count n more images."""


def ingest(
    dataset: str | Path,
    images_path: str | Path,
    classes: Wanted,
    size: int,
    skip_unreadable: bool = True,
    progress: Progress | None = None,
    *,
    ignore: Sequence[str] = (),
    labels: str | Path | None = None,
    group_by: Literal["none", "folder"] = "none",
    aside: Path | None = None,
    links: Links = "refuse",
    fit: Fit = "crop",
) -> Ingested:
    """Read the .npz file or folder `dataset` and write its images to `images_path`, (N, size, size, 3) RGB, by `fit`.

    The images are uint8 where that loses nothing, else float32 0..255. A few at a time are in memory, however many
    there are. `classes` and `ignore` are as `leaf.ingest.layout.resolve` takes them; `labels` and `group_by`, for a
    folder, as `leaf.ingest.layout.lay_out`. In the folder `aside` the images are kept for the next run, which decodes
    no file that it has met. Raises LeafError for a data set that is not as it should be; then nothing is written.
    """
    dataset = Path(dataset)
    source, names, numbers = survey(
        dataset, classes, skip_unreadable, ignore=ignore, labels=labels, group_by=group_by, links=links
    )
    earlier = DecodeCache(aside if isinstance(source, FolderSource) else None, {"size": size, "fit": fit})
    if isinstance(source, FolderSource):
        source.earlier = earlier
    try:
        made = _write(source, names, numbers, images_path, size, fit, np.dtype(np.uint8), dataset, earlier, progress)
        earlier.keep(Path(images_path), made.index)
        return made
    except FractionalError:
        return _write(source, names, numbers, images_path, size, fit, np.dtype(np.float32), dataset, earlier, progress)


def survey(
    dataset: Path,
    classes: Wanted,
    skip_unreadable: bool = True,
    *,
    ignore: Sequence[str] = (),
    labels: str | Path | None = None,
    group_by: Literal["none", "folder"] = "none",
    links: Links = "refuse",
) -> tuple[Source, list[str], np.ndarray]:
    """What `ingest` knows before it reads an image: the source, the class names, and each row's label (-1: ignored)."""
    source: Source
    if dataset.is_dir():
        known = list(map(nfc, classes)) if isinstance(classes, Sequence) and classes != "auto" else []
        source = FolderSource(dataset, skip_unreadable, Path(labels) if labels else None, group_by, known, links)
    else:
        refuse_folders_keys(dataset, labels, group_by)
        source = NpzSource(dataset)
    try:
        names, numbers = resolve(source.rows.name, source.rows.source, classes, ignore, dataset)
    except LeafError as error:  # what a table says in a column that is not used may be the class
        said = [note for note in source.notes if " columns " in note]
        raise LeafError("; ".join([str(error), *said]), error.proposals) from None
    for place in np.flatnonzero(numbers < 0).tolist():
        source.left_out[source.rows.source[place]] = f"the class {source.rows.name[place]}, by the key `ignore`"
    return source, names, numbers


def refuse_folders_keys(dataset: Path, labels: str | Path | None, group_by: str) -> None:
    """Raise LeafError where `labels` or `group_by` say something of the .npz file `dataset`."""
    if group_by != "none" or (labels and read_labels(Path(labels)).rows):
        raise LeafError(f"{dataset}: `labels` and `group_by` go with a folder; an .npz holds its own labels")


def _write(
    source: Source,
    names: Sequence[str],
    labels: np.ndarray,
    path: str | Path,
    size: int,
    fit: Fit,
    dtype: np.dtype,
    dataset: Path,
    earlier: DecodeCache,
    progress: Progress | None,
) -> Ingested:
    import pandas as pd  # here, for the processes that decode import this package and make no table

    source.unreadable.clear()
    places: list[np.ndarray] = []
    hashes: list[str] = []
    file_hashes: list[str] = []
    marks: list[str] = []
    sizes = [np.empty((0, 2), np.int64)]
    with growing_array(path, (size, size, 3), dtype) as array:
        for block in source.blocks(np.flatnonzero(labels >= 0), size, fit, dtype == np.uint8):
            array.append(block.images)
            places.append(block.places)
            told = _described(block, earlier)
            hashes += [digest for digest, _ in told]
            marks += [mark for _, mark in told]
            file_hashes += block.hashes
            sizes.append(block.sizes)
            if progress is not None:
                progress.update(len(block.images))
        kept = np.concatenate([np.empty(0, np.intp), *places])
        check_present(labels[kept], names, dataset)
    rows = source.rows
    width, height = np.concatenate(sizes).T
    index = pd.DataFrame(
        {
            "image": np.arange(len(kept)),
            "source": [rows.source[place] for place in kept],
            "label": labels[kept],
            "group": [rows.group[place] for place in kept],
            "split": [rows.split[place] for place in kept],
            "hash": hashes,
            "file_hash": file_hashes,
            "flags": marks,
            "width": width,
            "height": height,
        }
    )
    for name, column in rows.more.items():
        index[name] = [column[place] for place in kept]
    out = {**source.left_out, **source.unreadable}
    unreadable = pd.DataFrame({"file": out.keys(), "reason": out.values()})
    images = np.bincount(labels[kept], minlength=len(names))
    table = pd.DataFrame({"label": np.arange(len(names)), "name": names, "images": images})
    notes = [*source.notes, *_cropped(width, height)] if fit == "crop" else source.notes
    return Ingested(index, table, unreadable, notes, dtype)


def _described(block: Block, earlier: DecodeCache) -> list[tuple[str, str]]:
    """The hash and the flags of each image."""
    told = [earlier.described(file_hash) for file_hash in block.hashes]
    new = [place for place, known in enumerate(told) if known is None]
    for place, mark in zip(new, flags(block.images[new]) if new else [], strict=True):
        mark = f"{mark} {FIRST_FRAME}".strip() if block.frames[place] else mark
        told[place] = (pixels_hashed(block.images[place].data), mark)
    return [known for known in told if known is not None]


def _cropped(width: np.ndarray, height: np.ndarray) -> list[str]:
    """What the crop loses of photographs wider than a camera's 4:3, if they are more than a tenth."""
    lost = 1 - np.minimum(width, height) / np.maximum(width, height)
    wide = lost > 0.25
    if not wide.mean() > 0.1:
        return []
    return [
        f"{wide.sum()} of {len(wide)} images are wider than 4:3: the crop to a square loses {lost[wide].mean():.0%} of "
        "them on average; `fit: pad` and `fit: stretch` keep all"
    ]


DARK = 0.32  # the 99th percentile of the pixels' brightness lies below it
BRIGHT = 0.95  # the 5th percentile lies above it
BLURRED = 0.29  # the score of the edges' and the grey histogram's spread lies below it
LOW_INFORMATION = 0.3  # a tenth of the entropy, in bits, lies below it
FLAGS = ("dark", "bright", "blurred", "low_information")

_BLUR_SIDE = 64  # cleanvision looks for blur at this resolution
_WEIGHTS = np.array([0.241, 0.691, 0.068], np.float32)  # of squared red, green, blue in perceived brightness


def flags(images: np.ndarray) -> list[str]:
    """The flags of each image of (N, H, W, 3), uint8 or float32 0..255: space-separated names, or ""."""
    pixels = images if images.dtype == np.uint8 else np.rint(images).astype(np.uint8)
    grey = _grey(pixels)
    dark, bright = _dark_and_bright(pixels)
    wrong = np.stack([dark, bright, _blurred(grey), _low_information(pixels)], axis=1)
    return [" ".join(name for name, is_set in zip(FLAGS, row, strict=True) if is_set) for row in wrong.tolist()]


def _dark_and_bright(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # share below a threshold instead of a percentile: the same question without sorting
    squares = np.arange(256, dtype=np.float32) ** 2 / np.float32(255**2)
    table = squares[:, None] * _WEIGHTS
    brightness = table[:, 0][pixels[..., 0]]
    for channel in (1, 2):
        brightness += table[:, channel][pixels[..., channel]]
    count = brightness[0].size
    below_dark = np.count_nonzero(brightness < DARK**2, axis=(1, 2)) / count
    above_bright = np.count_nonzero(brightness > BRIGHT**2, axis=(1, 2)) / count
    return below_dark > 0.99, above_bright > 0.95


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance (N, S, S) uint8 as Pillow's mode L has it, no larger than cleanvision looks at."""
    side = min(_BLUR_SIDE, pixels.shape[1])
    grey = np.empty((len(pixels), side, side), np.uint8)
    for place, image in enumerate(pixels):
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) if side < len(image) else image
        cv2.cvtColor(small, cv2.COLOR_RGB2GRAY, dst=grey[place])
    return grey


def _blurred(grey: np.ndarray) -> np.ndarray:
    edges = grey.astype(np.int16)  # the border keeps its grey values, as Pillow's filter leaves it
    wide = edges[:, :-2] + edges[:, 1:-1] + edges[:, 2:]
    around = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    edges[:, 1:-1, 1:-1] = np.clip(9 * edges[:, 1:-1, 1:-1] - around, 0, 255)
    spread = edges.std(axis=(1, 2), dtype=np.float32)
    contrast = 1 - np.exp(-0.01 * _histograms(grey.reshape(len(grey), -1), 256).std(axis=1))
    contrast[contrast <= 0.18] = 0
    return 1 - np.exp(-0.01 * spread) + contrast < BLURRED


def _low_information(pixels: np.ndarray) -> np.ndarray:
    bins = pixels.reshape(len(pixels), -1, 3) + np.array([0, 256, 512], np.uint16)
    share = _histograms(bins.reshape(len(pixels), -1), 768) / pixels[0].size
    entropy = -(share * np.log2(share, out=np.zeros_like(share), where=share > 0)).sum(axis=1)
    return entropy * 0.1 < LOW_INFORMATION


def _histograms(values: np.ndarray, bins: int) -> np.ndarray:
    """Counts (N, bins) of the whole numbers in each row of (N, K)."""
    return np.stack([np.bincount(row, minlength=bins) for row in values])
