"""`leaf predict`: print predictions to standard output as they are computed, and messages to standard error."""

import csv
import glob
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from leaf.errors import LeafError, plural, printable
from leaf.ingest.files import HEAD, NAMES, kind, list_folder
from leaf.ingest.sandbox import cores
from leaf.ingest.source import in_order
from leaf.models.gradcam import heatmap_png
from leaf.serve.classifier import BATCH_SIZE, UNDECIDED, UNKNOWN, Classifier, Prediction, load, prepare
from leaf.store import replacing

_LONGEST_PATH = 4096  # the longest path that Linux accepts
_Prepared = tuple[np.ndarray, np.bool_]  # pixels (S, S, 3), and whether their statistics are in-distribution


def predict(paths: Sequence[str], model: str, form: str, views: int | None, heatmap: Path | None, quiet: bool) -> int:
    """Predict the images in `paths` and print one row per image.

    Args:
        paths: files, folders, glob patterns, or `-` for a list on standard input.
        model: `.onnx` or `.keras` file.
        form: output format: `text`, `csv` or `json`.
        views: number of views to average, or None for the number used in evaluation.
        heatmap: folder in which to write heatmaps as `0001-name.png`.
        quiet: whether to hide the progress bar and notes.

    Returns:
        Exit status: 1 if an image could not be read, otherwise 0.
    """
    images = expand(paths, sys.stdin.buffer)
    classifier = load(model)
    if heatmap is not None:
        heatmap.mkdir(parents=True, exist_ok=True)
    predictor = _Predictor(classifier, views, heatmap)
    with tqdm(total=len(images), unit=" images", disable=True if quiet else None) as bar:
        rows = predictor.predictions(images, bar)
        lines = {
            "csv": lambda: as_csv(rows, classifier.classes),
            "json": lambda: as_json(rows),
            "text": lambda: as_text(rows, images, classifier.classes),
        }[form]()
        for line in lines:
            bar.write(printable(line) if sys.stdout.isatty() else line, file=sys.stdout)
    for answer in (UNDECIDED, UNKNOWN):
        if (count := predictor.answers[answer]) and not quiet:
            print(f"{answer}: {count} of {plural(len(images), 'image')}. Check each one by eye.", file=sys.stderr)
    for line in predictor.unreadable:
        print(f"not read: {line}", file=sys.stderr)
    return 1 if predictor.unreadable else 0


@dataclass
class _Predictor:
    """Predict in batches, count the answers, and collect the errors of unreadable images."""

    classifier: Classifier
    views: int | None
    heatmap: Path | None
    unreadable: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    done: int = 0

    def predictions(self, images: Sequence[str], bar: tqdm) -> Iterator[Prediction]:
        """Yield the predictions of the readable images. Decoding continues in the background during prediction."""
        names: list[str] = []
        batch: list[_Prepared] = []
        for place, result in enumerate(in_order(self._prepare, images, max(1, cores() - 1))):  # one core for the model
            if isinstance(result, LeafError):
                self.unreadable.append(str(result))
            else:
                names.append(images[place])
                batch.append(result)
            if names and (len(names) == BATCH_SIZE or place + 1 == len(images)):
                pixels = np.stack([image for image, _ in batch], dtype=np.float32)
                known = np.array([known for _, known in batch])
                predictions = self.classifier.predict_prepared(names, pixels, self.views, known)
                if self.heatmap is not None:
                    self._draw(self.heatmap, names, pixels)
                self.answers.update(row.answer for row in predictions)
                yield from predictions
                names, batch = [], []
            bar.update()

    def _prepare(self, names: Sequence[str]) -> list[_Prepared | LeafError]:
        images: list[np.ndarray | LeafError] = []
        for name in names:
            try:
                images.append(prepare(name, self.classifier.image_size, name, self.classifier.fit))
            except LeafError as error:
                images.append(error)
        pixels = [image for image in images if not isinstance(image, LeafError)]
        known = iter(self.classifier.ood_detector.pixels_in_distribution(np.stack(pixels)) if pixels else ())
        return [image if isinstance(image, LeafError) else (image, next(known)) for image in images]

    def _draw(self, folder: Path, names: Sequence[str], pixels: np.ndarray) -> None:
        for name, image, strength in zip(names, pixels, self.classifier.heatmaps(pixels), strict=True):
            self.done += 1
            with replacing(folder / f"{self.done:04d}-{Path(name).stem[:50]}.png") as partial:
                partial.write_bytes(heatmap_png(image, strength))


def as_csv(predictions: Iterable[Prediction], classes: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a CSV table with a header; `known` is 1 or 0."""
    names = [each.name for each in fields(Prediction) if each.name != "probabilities"]
    yield _csv_line([*names, *(f"probability of {name}" for name in classes)])
    for prediction in predictions:
        row = vars(prediction) | {"known": int(prediction.known)}
        yield _csv_line([*(row[name] for name in names), *(prediction.probabilities[name] for name in classes)])


def _csv_line(cells: Iterable[Any]) -> str:
    """Format one line. Text that a spreadsheet would evaluate as a formula gets an apostrophe in front."""
    cells = [f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell for cell in cells]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield the lines of one JSON array, one prediction per line."""
    before = "["
    for prediction in predictions:
        yield before + json.dumps(vars(prediction), ensure_ascii=False)
        before = ","
    yield "]" if before == "," else "[]"


def as_text(predictions: Iterable[Prediction], images: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a text table; `images` and `classes` set the column widths."""
    wide = min(60, max(len(printable(name)) for name in [*images, "image"]))
    label = max(len(name) for name in [*classes, "label"])
    yield f"{'image'.ljust(wide)}  {'label'.ljust(label)}  probability  threshold  answer"
    for row in predictions:
        threshold = "argmax".rjust(9) if row.threshold is None else f"{row.threshold:9.4f}"
        figures = f"{row.probability:11.4f}  {threshold}  {row.answer}"
        yield f"{printable(row.image).ljust(wide)}  {row.label.ljust(label)}  {figures}"


def expand(arguments: Sequence[str], listed: BinaryIO) -> list[str]:
    """Expand arguments to image paths, in order, without duplicates.

    Args:
        arguments: files (not checked here); folders (all images below); glob patterns; `-` for the paths in `listed`.
        listed: standard input, one path per line or separated by NUL as by `find -print0`, in UTF-8 or UTF-16.

    Raises:
        LeafError: if there is no image, a pattern has no match, or `listed` is not a list of paths.
    """
    images: dict[str, None] = {}
    for argument in arguments:
        for name in _listed(listed.read()) if argument == "-" else [argument]:
            if name:
                images |= dict.fromkeys(_images_of(name))
    if not images:
        raise LeafError(f"{' '.join(arguments)}: no image found. Use image files or folders with images.")
    return list(images)


def _listed(data: bytes) -> list[str]:
    if name := NAMES.get(kind(data[:HEAD])):
        raise LeafError(
            f"-: standard input is a {name} image, not a list of paths. Save it to a file and pass its path."
        )
    bom = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    without_bom = ("utf-16-be" if data[:1] == b"\0" else "utf-16-le") if b"\n\0" in data else ""
    encoding = "utf-16" if bom else without_bom
    try:
        text = (data.decode(encoding) if encoding else os.fsdecode(data)).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise LeafError("-: standard input is neither UTF-8 nor complete UTF-16. Send one path per line.") from None
    names = text.split("\0") if "\0" in text else [line.rstrip("\r") for line in text.split("\n")]
    if longest := [name for name in names if len(name) > _LONGEST_PATH]:
        raise LeafError(f"-: standard input contains a path of {len(longest[0]):,} characters. Send one path per line.")
    return names


def _images_of(argument: str) -> Iterator[str]:
    path = Path(argument)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() raises if the name is too long
        listing = list_folder(path, "files")
        for note in listing.notes():
            print(f"{path}: {note}", file=sys.stderr)
        yield from (str(path / file) for file in listing.images)
    elif not os.path.exists(path) and glob.has_magic(argument):  # noqa: PTH110
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob accepts no absolute pattern
        if not matches:
            raise LeafError(f"{argument}: the pattern matches no file. Correct it, or pass a folder.")
        yield from (name for name in matches if not Path(name).is_dir())
    else:
        yield argument
