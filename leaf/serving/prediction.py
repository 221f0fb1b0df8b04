"""What the model says of one image, and how that is written: a table to read, CSV, JSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        image: the image as it was given: a path, or its number for an array.
        label: the predicted class.
        probability: of the second class (`unhealthy`), 0 to 1, whatever the label.
        threshold: the probability from which the second class is predicted.
        known: False where the image is unlike every training image: then label and probability mean nothing.
    """

    image: str
    label: str
    probability: float
    threshold: float
    known: bool


COLUMNS = tuple(field.name for field in fields(Prediction))


def as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Give the lines of a CSV table, header first, without line ends; `known` is 1 or 0 as in the pipeline's tables."""
    yield ",".join(COLUMNS)
    for prediction in predictions:
        text = io.StringIO()
        row = vars(prediction) | {"known": int(prediction.known)}
        csv.writer(text, lineterminator="").writerow(row.values())
        yield text.getvalue()


def as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Give the lines of one JSON array, one prediction a line, so that a long one can be read as it grows."""
    before = "["
    for prediction in predictions:
        yield before + json.dumps(vars(prediction), ensure_ascii=False)
        before = ","
    yield "]" if before == "," else "[]"


def as_text(predictions: Iterable[Prediction], images: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    """Give the lines of a table for a person; the label of an image that is not known bears a question mark.

    Args:
        predictions: the rows.
        images: every image's name, for the width of the first column.
        classes: the labels, for the width of the second.
    """
    wide = min(60, max(len(_shown(name)) for name in [*images, "image"]))
    label = max(len(name) for name in [*classes, "label"]) + 1
    yield f"{'image'.ljust(wide)}  {'label'.ljust(label)}  probability  threshold  known"
    for row in predictions:
        said = row.label if row.known else f"{row.label}?"
        known = "yes" if row.known else "no"
        figures = f"{row.probability:11.4f}  {row.threshold:9.4f}  {known}"
        yield f"{_shown(row.image).ljust(wide)}  {said.ljust(label)}  {figures}"


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)  # a file name may hold a line end or move the cursor
