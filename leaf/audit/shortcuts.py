"""Find shortcuts: predict the class without the leaf, from border pixels, the frame or file metadata.

Each feature is scored by a random forest in grouped cross-validation. In PlantVillage, eight border pixels alone
predict one of 38 classes with 49% accuracy (arXiv 2206.04374).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from dateutil import parser
from PIL import Image

from leaf.evaluate.baselines import cross_validated, joint_histograms
from leaf.evaluate.statistics import difference_interval, holm, proportion_interval, standard_error

FOLDS = 5
LEVEL = 0.01  # familywise error rate: probability of at least one false alarm per audit
FRAME = 0.1  # width of the frame, as a fraction of the image side
_NGRAMS = 400  # maximum number of file-name n-grams
_NUMBERS = re.compile(r"(\d{1,2})([-./ ])(\d{1,2})\2(\d{4}|\d{2})(?!\d)")  # two short numbers and a year
_SERIAL = re.compile(r"[2-6]\d{4}(\.\d+)?")  # a spreadsheet date, in days since 1899-12-30: 1954 to 2091
_DEFAULTS = datetime(2000, 1, 1), datetime(2001, 2, 2, 1, 1)  # the parser fills missing parts from a default date
_ORDERS = {"day, month, year": (1, 3), "month, day, year": (3, 1)}  # groups of _NUMBERS: day, month


@dataclass(frozen=True)
class Score:
    """A share of images with its 95% confidence interval, which accounts for groups."""

    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.accuracy:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Shortcut:
    """The result of predicting the class from one feature. `images` is the number of images that have the feature.

    `score` and `balanced` are the accuracy and balanced accuracy of a random forest, `majority` is the accuracy of
    always predicting the largest class, and `p` is the Holm-adjusted p-value of `score` exceeding `majority`.
    """

    score: Score
    balanced: float
    majority: float
    images: int
    p: float

    @property
    def alarm(self) -> bool:
        return self.p < LEVEL


def score(right: np.ndarray, groups: np.ndarray) -> Score:
    """Return the mean of `right`, 0..1 (N,), with its 95% interval, or nan if `right` is empty."""
    return Score(float(np.mean(right)) if len(right) else np.nan, *proportion_interval(right, groups))


def balanced_accuracy(right: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean recall of the classes in `labels` (N,), given whether each prediction is `right`, bool (N,)."""
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def difference(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Score:
    """Return mean(first) − mean(second) of paired values, 0..1 (N,), with its 95% interval."""
    return Score(float(np.mean(first) - np.mean(second)), *difference_interval(first, second, groups))


def find_shortcuts(described: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray) -> dict[str, Shortcut]:
    """Measure how well each feature in `described`, float (N, D), predicts the `labels`, int (N,).

    Rows without the feature are nan. Features known for fewer than a tenth of the images are skipped. A constant
    feature gets the score of always predicting the largest class. Images with the same value in `groups` (N,) stay in
    one fold.
    """
    from scipy.stats import norm

    found: dict[str, tuple[Score, float, float, int]] = {}
    p_values: dict[str, float] = {}
    for name, values in described.items():
        known = np.isfinite(values).all(axis=1)
        chosen, classes = values[known], labels[known]
        if known.sum() < max(len(labels) / 10, 2 * FOLDS) or len(np.unique(classes)) < 2:
            continue
        right = largest = classes == np.bincount(classes).argmax()
        of = groups[known]
        if np.ptp(chosen, 0).any():
            right = cross_validated("forest", chosen, classes, of, FOLDS)
            gain = right.astype(float) - largest
            error = standard_error(gain, of)
            p_values[name] = float(norm.sf(gain.mean() / error)) if error else float(gain.mean() <= 0)
        found[name] = score(right, of), balanced_accuracy(right, classes), float(largest.mean()), len(of)
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {name: Shortcut(*each, float(adjusted.get(name, 1))) for name, each in found.items()}


def pixel_features(images: np.ndarray, rows: np.ndarray, masks: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return pixel features of the images (N, S, S, 3), 0..255, at `rows`: float32 (len(rows), D) each.

    `masks` are bool (len(rows), S, S), true on the leaf. The background feature of an image with an empty mask is nan.
    """
    pixels = np.clip(np.asarray(images[rows]), 0, 255).astype(np.uint8)
    size = pixels.shape[1]
    ends = (0, size // 2, size - 1)
    border = [pixels[:, down, right] for down in ends for right in ends if (down, right) != (ends[1], ends[1])]
    frame = _frame(size)
    found = {
        "border_pixels": np.concatenate(border, axis=1),
        "frame": joint_histograms(pixels[:, frame][:, None], np.arange(len(pixels))),
        "colour": pixels.mean(axis=(1, 2)),
        "sharpness": np.array([_sharpness(image) for image in pixels])[:, None],
    }
    if masks is not None and masks.any():
        found["background"] = np.array([_background(*each) for each in zip(pixels, masks, strict=True)])
    return {name: values.astype(np.float32) for name, values in found.items()}


def _frame(size: int) -> np.ndarray:
    """Return a mask of the outer frame, bool (size, size)."""
    wide = max(1, round(FRAME * size))
    return np.pad(np.zeros((size - 2 * wide,) * 2, bool), wide, constant_values=True)


def alter_images(
    images: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return altered images (M, S, S, 3) and their rows in `images`, int (M,), for each kind of alteration.

    - `frame` replaces the frame, and `centre` everything else, with that part of an image of another class.
    - `frame_same` uses the frame of another image of the same class, to measure the effect of the seam alone.
    - `colour` converts the image to grayscale.
    - `background` replaces everything outside the mask with the mean color.

    `images` is (N, S, S, 3), 0..255; `labels` is int (N,), with at least two classes; `masks` is bool (N, S, S).
    """
    random = np.random.default_rng(0)
    everything = np.arange(len(images))
    donors = np.array([random.choice(everything[labels != label]) for label in labels])
    alike = everything.copy()
    for label in np.unique(labels):
        own = random.permutation(everything[labels == label])
        alike[own] = np.roll(own, 1)
    frame = _frame(images.shape[1])[None, ..., None]
    grey = np.clip(images @ np.array([0.299, 0.587, 0.114]), 0, 255)
    found = {
        "frame": (everything, np.where(frame, images[donors], images)),
        "frame_same": (everything, np.where(frame, images[alike], images)),
        "centre": (everything, np.where(frame, images, images[donors])),
        "colour": (everything, np.repeat(grey[..., None], 3, axis=-1).astype(images.dtype)),
    }
    if masks is not None and masks.any():
        asked = np.flatnonzero(masks.any(axis=(1, 2)))
        mean = images.mean(axis=(0, 1, 2)).astype(images.dtype)
        found["background"] = asked, np.where(masks[asked][..., None], images[asked], mean)
    return found


def _sharpness(image: np.ndarray) -> float:
    """Return the variance of the Laplacian on a logarithmic scale."""
    return float(np.log1p(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()))


def _background(image: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    margin = np.ones((5, 5), np.uint8)  # because masks are rough
    around = image[cv2.dilate(leaf.astype(np.uint8), margin) == 0]
    if not leaf.any() or not len(around):
        return np.full(512, np.nan)
    return joint_histograms(around[None, None], np.zeros(1, int))[0]


def file_facts(folder: Path | None, sources: Sequence[str], known: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return the metadata of image files: `bytes`, `jpeg` (format and quality), `camera`, `date`, `width`, `height`.

    `sources` are paths in `folder`, which is None for an .npz file. `known` are columns of the data set's table; they
    take precedence over EXIF data. Unknown text is "", and an unknown file size is nan.
    """
    files = [_read_facts(folder / source) for source in sources] if folder else [{} for _ in sources]
    facts: dict[str, list[Any]] = {"bytes": [each.get("bytes", np.nan) for each in files]}
    for key in ("jpeg", "camera", "date"):
        found = [each.get(key, "") for each in files]
        given = ["" if text != text else str(text) for text in known.get(key, found)]  # missing values are nan
        facts[key] = [one or other for one, other in zip(given, found, strict=True)]
    return facts | {key: list(known[key]) for key in ("width", "height") if key in known}


def file_features(facts: Mapping[str, Sequence[Any]], sources: Sequence[str]) -> dict[str, np.ndarray]:
    """Return features of file names and of the result of `file_facts`: float32 (N, D) each, nan if unknown."""
    names = [Path(source).stem for source in sources]
    order = np.empty(len(names), int)
    order[sorted(range(len(names)), key=lambda place: _natural(names[place]))] = np.arange(len(names))
    found = {
        "file_size": np.array(facts["bytes"])[:, None],
        "jpeg": _one_hot(facts["jpeg"]),
        "camera": _one_hot(facts["camera"]),
        "date": np.array([_when(date) for date in iso_dates(facts["date"])[0]]),
        "order": order[:, None],
    }
    if {"width", "height"} <= facts.keys():
        found["dimensions"] = np.stack([facts["width"], facts["height"]], axis=1)
    if np.isfinite(found["file_size"]).any():  # false for an .npz file, whose images have no names
        found["name"] = _ngrams(names)
    return {name: values.astype(np.float32) for name, values in found.items()}


def _read_facts(path: Path) -> dict[str, Any]:
    """Return the size, camera, date and compression of an image file, or {} if it cannot be read."""
    try:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None) or {}
            exif = image.getexif()
            taken = exif.get_ifd(0x8769).get(0x9003) or exif.get(0x0132) or ""
            quality = " ".join(str(sum(tables[key])) for key in sorted(tables))
            info = (str(image.info.get(key, "")) for key in ("progressive", "dpi"))
            marks = " ".join([str(image.format), image.mode, quality, *info])
            camera = " ".join(str(exif.get(key, "")) for key in (0x010F, 0x0110)).strip("\0 ")
            return {"bytes": path.stat().st_size, "camera": camera, "date": str(taken).strip("\0 "), "jpeg": marks}
    except (OSError, ValueError, SyntaxError):  # raised by Pillow for damaged files
        return {}


def _when(date: str) -> list[float]:
    """Return the day number and hour of an ISO date, or nan for both if it has no day."""
    try:
        time = datetime.fromisoformat(date)
        return [float(time.toordinal()), time.hour + time.minute / 60]
    except ValueError:
        return [np.nan, np.nan]


def _one_hot(values: Sequence[str]) -> np.ndarray:
    """One-hot encode the 50 most frequent values; rows of empty values are nan."""
    given = np.array(values, object)
    names, counts = np.unique(given[given != ""], return_counts=True)
    common = names[np.argsort(-counts, kind="stable")[:50]] if len(names) else np.array([None])
    found = (given[:, None] == common[None]).astype(np.float32)
    found[given == ""] = np.nan
    return found


def _ngrams(names: Sequence[str]) -> np.ndarray:
    """Count character n-grams (1 to 3) of the names. Digits become 0, because the feature `order` covers numbers."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer="char", ngram_range=(1, 3), max_features=_NGRAMS)
    return counter.fit_transform([f"^{re.sub(r'[0-9]', '0', name)}$" for name in names]).toarray()


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a natural sort key, which puts file 9 before file 10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name.lower()))


def iso_dates(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Convert dates to ISO 8601 (2024-03-01 12:30:00), keeping only the parts present (2024-03, 2024).

    Accepts ISO dates, compact dates (20240301), English month names, spreadsheet serial numbers, and numeric dates with
    the day or the month first. Numeric dates are read in the order that makes all of them valid. If both orders do,
    dates with dots are read day first, and others are ambiguous.

    Returns the dates, "" if missing or unreadable, and one-line remarks for the user.
    """
    # EXIF dates use colons.
    texts = [re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip("\0 ")) for text in texts]
    numbers = [found for text in texts if (found := _NUMBERS.match(text))]
    orders = [
        name
        for name, (day, month) in _ORDERS.items()
        if all(int(each[day]) <= 31 and int(each[month]) <= 12 for each in numbers)
    ]
    if len(orders) == 2 and not all(each[2] == "." for each in numbers):
        orders = []
    remarks = []
    if numbers and orders:
        remarks.append(f"Dates such as {numbers[0][0]} are interpreted as {orders[0]}.")
    dates = [_iso(text, orders) for text in texts]
    if unread := [text for text, date in zip(texts, dates, strict=True) if text and not date]:
        why = ", because the order of day and month is ambiguous" if numbers and not orders else ""
        remarks.append(
            f"Dates not used: {len(unread)} of {sum(map(bool, texts))} (first: {unread[0][:40]!r}){why}. "
            "Use the format YYYY-MM-DD."
        )
    return dates, remarks


def _iso(text: str, orders: Sequence[str]) -> str:
    if _SERIAL.fullmatch(text):
        date = datetime(1899, 12, 30) + timedelta(days=float(text))
        return date.isoformat(" ", "seconds").removesuffix(" 00:00:00")
    if (_NUMBERS.match(text) and not orders) or re.fullmatch(r"\d{1,3}|\d{5,7}|\D*", text):
        return ""
    year_first = re.match(r"\d{4}", text) is not None
    day_first = not year_first and orders[:1] == ["day, month, year"]
    try:
        date, other = (
            parser.parse(text, default=default, ignoretz=True, dayfirst=day_first, yearfirst=year_first)
            for default in _DEFAULTS
        )
    except (ValueError, OverflowError):
        return ""
    if date.year != other.year:
        return ""
    length = 4 if date.month != other.month else 7 if date.day != other.day else 10 if date.hour != other.hour else 19
    return date.isoformat(" ", "seconds")[:length]
