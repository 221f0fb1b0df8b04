"""`leaf predict`: rows on standard output as they come, everything else on standard error."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from leaf.errors import LeafError
from leaf.reading.ahead import cores, in_order
from leaf.reading.decode import SUFFIXES
from leaf.serving import overlay
from leaf.serving.classifier import BATCH, Classifier, load
from leaf.serving.inputs import expand
from leaf.serving.pixels import prepare
from leaf.serving.prediction import Prediction, as_csv, as_json, as_text

_Read = tuple[np.ndarray, np.bool_]  # an image's pixels (S, S, 3), and whether it looks like the training images


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
        for count, names, read in self._read(images):
            if names:
                pixels = np.stack([image for image, _ in read], dtype=np.float32)
                seems_known = np.array([seems for _, seems in read])
                predictions = self.classifier.judge(names, pixels, self.views, seems_known)
                if self.heatmap is not None:
                    self._draw(self.heatmap, names, pixels)
                self.strange += sum(not row.known for row in predictions)
                yield from predictions
            bar.update(count)

    def _read(self, images: Sequence[str]) -> Iterator[tuple[int, list[str], list[_Read]]]:
        """Batch by batch its size and what could be read; the next one is read while the network judges the last."""
        count, names, read = 0, [], []
        for place, result in in_order(self._prepare, images, max(1, cores() - 1)):  # one is the network's
            count += 1
            if isinstance(result, LeafError):
                self.unreadable.append(str(result))
            else:
                names.append(images[place])
                read.append(result)
            if len(names) == BATCH or place + 1 == len(images):
                yield count, names, read
                count, names, read = 0, [], []

    def _prepare(self, names: Sequence[str]) -> list[_Read | LeafError]:
        images: list[np.ndarray | LeafError] = []
        for name in names:
            try:
                images.append(prepare(name, self.classifier.image_size, name))
            except LeafError as error:
                images.append(error)
        pixels = [image for image in images if not isinstance(image, LeafError)]
        seems = iter(self.classifier.seems_known(np.stack(pixels)) if pixels else ())
        return [image if isinstance(image, LeafError) else (image, next(seems)) for image in images]

    def _draw(self, folder: Path, names: Sequence[str], pixels: np.ndarray) -> None:
        for name, image, strength in zip(names, pixels, self.classifier.heatmaps(pixels), strict=True):
            self.done += 1
            overlay.write(image, strength, folder / f"{self.done:04d}-{Path(name).stem}.png")
