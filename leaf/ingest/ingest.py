"""Read a data set, and write an array of its images and a table that describes them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Unpack, cast

import numpy as np
import pandas as pd

from leaf.errors import LeafError
from leaf.ingest.classes import Wanted, check_present, nfc, resolve
from leaf.ingest.decode import DecodedImage, Fit
from leaf.ingest.decode_cache import DecodeCache, pixel_hash
from leaf.ingest.folder_source import FolderSource, Reading, UnlabelledError
from leaf.ingest.label_tables import read_labels
from leaf.ingest.npz import NpzSource
from leaf.ingest.quality import quality_flags
from leaf.ingest.source import FractionalError, Source
from leaf.ingest.unlabelled import NewImages, find_unlabelled, join_labelled, read_given, time_taken
from leaf.store import cache_folder, replacing, write_table

_BATCH = 64  # images per batch


@dataclass
class Ingested:
    """The result of `ingest`.

    `index` has the columns image, source, label, group, split, hash (of the stored pixels), file_hash (of the file, or
    of the array in an .npz), flags, and width and height (of the original, in pixels). If known, it also has the
    columns site, crop, camera and date. If data/labels.csv labels an image, it has the column chosen (see
    `leaf.ingest.unlabelled.Given`).
    """

    index: pd.DataFrame
    classes: pd.DataFrame  # columns: label, name, images
    unreadable: pd.DataFrame  # columns: file, reason; a row per excluded file
    notes: list[str]  # one-line messages for the user
    dtype: np.dtype  # dtype of the stored images
    conflicts: int  # number of images with conflicting labels from several people
    unlabelled: pd.DataFrame = field(init=False)  # only if `unlabelled_path` is given; see `write_unlabelled`


def ingest(
    dataset: str | Path,
    images_path: str | Path,
    classes: Wanted,
    size: int,
    skip_unreadable: bool = True,
    advance: Callable[[int], object] = lambda _: None,
    *,
    aside: Path | None = None,
    fit: Fit = "crop",
    unlabelled: Path | None = None,
    unlabelled_path: str | Path | None = None,
    **reading: Unpack[Reading],
) -> Ingested:
    """Read a data set and write its images, (N, size, size, 3) RGB, to the .npy file `images_path`.

    The images are uint8 if that is lossless, otherwise float32 in 0..255. `advance` is called after each batch with its
    number of images. The folder `aside` caches decoded images between runs.

    If `unlabelled_path` is given, the unlabeled images of the data set and of the folder `unlabelled` are written to
    it. Those that have a label in data/labels.csv are appended to the data set instead.

    Raises LeafError, without writing a file, if the data set is invalid, or if a file cannot be read and
    `skip_unreadable` is false.
    """
    dataset = Path(dataset)
    try:
        source, names = survey(dataset, classes, skip_unreadable, **reading)
    except UnlabelledError as error:  # data/labels.csv may contain all labels
        if unlabelled_path is None or classes == "auto" or not read_given()[0]:
            raise
        source, names = NewImages({}), list(classes)
        source.rows["label"] = np.empty(0, np.int64)
        source.unlabelled = list(error.files)
    if isinstance(source, FolderSource):
        source.cache = DecodeCache(aside, {"size": size, "fit": fit})
    waiting = NewImages({})
    conflicts: dict[str, list[str]] = {}
    if unlabelled_path is not None and (
        files := find_unlabelled(source, dataset, unlabelled, reading.get("links", "refuse"))
    ):
        given, conflicts = read_given()
        source, waiting = join_labelled(source, names, files, skip_unreadable, given)
    labels = source.rows["label"].to_numpy()

    def check(kept: np.ndarray) -> None:
        check_present(labels[kept], names, dataset, source.unreadable)

    def write() -> tuple[np.ndarray, pd.DataFrame]:
        return _write_images(source, np.flatnonzero(labels >= 0), Path(images_path), size, fit, advance, check)

    try:
        kept, described = write()
    except FractionalError:
        source.dtype = np.dtype(np.float32)
        kept, described = write()
    rows = source.rows.iloc[kept].reset_index(drop=True)
    first = ["source", "label", "group", "split"]
    index = pd.concat([rows[first], described, rows.drop(columns=[*first, "name"])], axis=1)
    index.insert(0, "image", range(len(kept)))
    out = {**source.left_out, **source.unreadable}
    unreadable = pd.DataFrame({"file": out.keys(), "reason": out.values()})
    images = np.bincount(labels[kept], minlength=len(names))
    table = pd.DataFrame({"label": np.arange(len(names)), "name": names, "images": images})
    notes = [*source.notes, *(_note_on_crop(index) if fit == "crop" else [])]
    made = Ingested(index, table, unreadable, notes, source.dtype, len(conflicts))
    if unlabelled_path is not None:
        made.unlabelled = write_unlabelled(waiting, unlabelled_path, size, fit, aside, advance)
    return made


def write_unlabelled(
    source: NewImages,
    path: str | Path,
    size: int,
    fit: Fit,
    aside: Path | None,
    advance: Callable[[int], object] = lambda _: None,
) -> pd.DataFrame:
    """Write the images of `source` as uint8 to `path`, and a table to the .csv file of the same name.

    Return the table. Its columns are image, source, hash, file_hash, flags, width, height and taken (capture time).
    """
    source.cache = DecodeCache(aside and cache_folder(f"{aside.name}-unlabelled"), {"size": size, "fit": fit})
    places, table = _write_images(source, np.arange(len(source.rows)), Path(path), size, fit, advance)
    names = source.rows["source"].iloc[places].tolist()
    table.insert(0, "image", range(len(names)))
    table.insert(1, "source", names)
    table["taken"] = [time_taken(source.path(name)) for name in names]
    write_table(table, Path(path).with_suffix(".csv"))
    return table


def reading_options(params: Any) -> Reading:
    """Return the reading options in params.yaml."""
    options = {name: getattr(params, name) for name in Reading.__annotations__}
    return cast(Reading, options | {"columns": params.columns.model_dump()})


def survey(
    dataset: Path, classes: Wanted, skip_unreadable: bool = True, **reading: Unpack[Reading]
) -> tuple[Source, list[str]]:
    """Read everything but the pixels. Return the source and the class names."""
    source: Source
    if dataset.is_dir():
        known = list(map(nfc, classes)) if isinstance(classes, Sequence) and classes != "auto" else []
        source = FolderSource(dataset, skip_unreadable, known, **reading)
    else:
        refuse_folders_keys(dataset, reading.get("labels"), reading.get("group_by", "none"))
        source = NpzSource(dataset)
    try:
        found, files = source.rows["name"].tolist(), source.rows["source"].tolist()
        names, labels = resolve(found, files, classes, reading.get("ignore", ()), dataset)
    except LeafError as error:  # an unused column may contain the classes
        unused = [note for note in source.notes if " columns " in note]
        raise LeafError("; ".join([str(error), *unused]), error.proposals) from None
    for place in np.flatnonzero(labels < 0).tolist():
        source.left_out[files[place]] = f"class {found[place]} is excluded by `ignore`"
    source.rows["label"] = labels
    return source, names


def refuse_folders_keys(dataset: Path, labels: str | Path | None, group_by: str) -> None:
    """Raise LeafError if `labels` or `group_by` is set for the .npz file `dataset`."""
    if group_by != "none" or (labels and read_labels(Path(labels)).rows):
        raise LeafError(
            f"{dataset}: `labels` and `group_by` require a folder of images, not an .npz file. Restore their defaults."
        )


def _write_images(
    source: Source,
    wanted: np.ndarray,
    path: Path,
    size: int,
    fit: Fit,
    advance: Callable[[int], object],
    check: Callable[[np.ndarray], object] = lambda _: None,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Write the images in rows `wanted`. Return the readable rows and a table of their images.

    `check` is called with the readable rows before the file is complete; if it raises, no file is written.
    """
    source.unreadable.clear()
    described: list[tuple[int | str, ...]] = []
    with replacing(path) as partial, partial.open("wb") as file:
        _write_header(file, source.dtype, (0, size, size, 3))
        images = source.images(wanted, size, fit)
        while batch := list(islice(images, _BATCH)):
            pixels = np.stack([image.pixels for _, image, _ in batch]).astype(source.dtype, copy=False)
            file.write(pixels.data)
            described += _described(batch, pixels, source.cache)
            advance(len(batch))
        table = pd.DataFrame(described, columns=["place", "hash", "file_hash", "flags", "width", "height"])
        kept = table.pop("place").to_numpy(np.intp)
        check(kept)
        _write_header(file, source.dtype, (len(kept), size, size, 3))
    source.cache.keep(path, table)
    return kept, table


def _write_header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file. Its length is the same for any number of images."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def _described(
    batch: Sequence[tuple[int, DecodedImage, str]], pixels: np.ndarray, cache: DecodeCache
) -> Iterator[tuple[int | str, ...]]:
    """Yield the columns of each image in `_write_images`, with the hash and flags from the cache if possible."""
    described = [cache.described(file_hash) for _, _, file_hash in batch]
    new = [number for number, known in enumerate(described) if known is None]
    flags = dict(zip(new, quality_flags(pixels[new]) if new else [], strict=True))
    for number, (place, image, file_hash) in enumerate(batch):
        if (known := described[number]) is None:
            found = f"{flags[number]} first_frame".strip() if image.frames else flags[number]
            known = pixel_hash(pixels[number].data), found
        yield place, known[0], file_hash, known[1], image.width, image.height


def _note_on_crop(index: pd.DataFrame) -> list[str]:
    """Return a note on how much the square crop removes if over 10% of the images have an aspect ratio above 4:3."""
    sides = index[["width", "height"]]
    lost = 1 - sides.min(axis=1) / sides.max(axis=1)
    wide = lost > 0.25
    if wide.mean() <= 0.1:
        return []
    return [
        f"images with an aspect ratio above 4:3: {wide.sum()} of {len(wide)}; the crop to a square removes "
        f"{lost[wide].mean():.0%} of each on average. `fit: pad` and `fit: stretch` keep the whole image."
    ]
