"""`leaf predict`: rows on standard output as they come, everything else on standard error."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from leaf.errors import LeafError
from leaf.reading.decode import SUFFIXES
from leaf.serving import overlay
from leaf.serving.classifier import BATCH, Classifier, load
from leaf.serving.inputs import expand
from leaf.serving.pixels import prepare
from leaf.serving.prediction import Prediction, as_csv, as_json, as_text


def predict(paths: Sequence[str], model: str, form: str, views: int | None, heatmap: Path | None, quiet: bool) -> int:
    """Predict the images that `paths` mean and print one row each.

    Args:
        paths: files, folders, glob patterns, `-` for a list on standard input.
        model: the `.keras` file.
        form: `text`, `csv` or `json`.
        views: views averaged, None for as many as the model was judged with.
        heatmap: folder for a picture of each image under its heat map, `0001-name.png` for the first row.
        quiet: no progress bar, no remarks.

    Returns:
        The exit status: 0, or 1 where an image could not be read; it is named at the end and the rest is done.
    """
    images = expand(paths, sys.stdin, SUFFIXES)
    classifier = load(model)
    if heatmap is not None:
        heatmap.mkdir(parents=True, exist_ok=True)
    work = _Work(classifier, views, heatmap)
    with tqdm(total=len(images), unit=" images", disable=True if quiet else None) as bar:
        rows = work.rows(images, bar)
        lines = (
            {"csv": as_csv, "json": as_json}[form](rows)
            if form != "text"
            else as_text(rows, images, classifier.classes)
        )
        for line in lines:
            bar.write(line, file=sys.stdout)
    if work.strange and not quiet:
        remark = "1 image is" if work.strange == 1 else f"{work.strange} images are"
        print(f"{remark} not a leaf that this model knows: the label means nothing there", file=sys.stderr)
    for line in work.unreadable:
        print(f"not read: {line}", file=sys.stderr)
    return 1 if work.unreadable else 0


class _Work:
    """The rows of one command, and what came up on the way: `unreadable` (a line each), `strange` (a count)."""

    def __init__(self, classifier: Classifier, views: int | None, heatmap: Path | None) -> None:
        self.classifier = classifier
        self.views = views
        self.heatmap = heatmap
        self.unreadable: list[str] = []
        self.strange = 0
        self.done = 0

    def rows(self, images: Sequence[str], bar: tqdm) -> Iterator[Prediction]:
        for count, names, pixels in self._read(images):
            if names:
                predictions = self.classifier.judge(names, np.stack(pixels), self.views)
                if self.heatmap is not None:
                    self._draw(self.heatmap, names, np.stack(pixels))
                self.strange += sum(not row.known for row in predictions)
                yield from predictions
            bar.update(count)

    def _read(self, images: Sequence[str]) -> Iterator[tuple[int, list[str], list[np.ndarray]]]:
        """Batch by batch its size and what could be read; the next one is read while the network judges the last."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "photographs") as readers:
            ahead = self._begin(readers, parts[0]) if parts else []
            for place, part in enumerate(parts):
                begun, ahead = ahead, self._begin(readers, parts[place + 1]) if place + 1 < len(parts) else []
                names, pixels = [], []
                for name, reading in zip(part, begun, strict=True):
                    try:
                        pixels.append(reading.result())
                        names.append(name)
                    except LeafError as error:
                        self.unreadable.append(str(error))
                yield len(part), names, pixels

    def _begin(self, readers: Executor, part: Sequence[str]) -> list[Future[np.ndarray]]:
        return [readers.submit(prepare, name, self.classifier.image_size, name) for name in part]

    def _draw(self, folder: Path, names: Sequence[str], pixels: np.ndarray) -> None:
        for name, image, strength in zip(names, pixels, self.classifier.heatmaps(pixels), strict=True):
            self.done += 1
            overlay.write(image, strength, folder / f"{self.done:04d}-{Path(name).stem}.png")
