"""Shortcuts: how well the label is told by what is no leaf, such as the border, the frame, or the file itself.

Each is asked by a forest of random trees in folds that keep groups whole. Eight pixels of the border were right in 49 %
of PlantVillage's 38 classes (arXiv 2206.04374).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from leaf.audit.dates import iso_dates
from leaf.evaluate.baselines import cross_validated, joint_histograms
from leaf.evaluate.statistics import difference_interval, holm, proportion_interval, standard_error

FOLDS = 5
LEVEL = 0.01  # at most this chance of any false alarm among all shortcuts of one audit
FRAME = 0.1  # of the side
_LETTERS = 400  # pieces of file names that are looked at


@dataclass(frozen=True)
class Score:
    """A share of images with its 95 % interval, groups drawn together."""

    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.accuracy:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Shortcut:
    """How often one thing alone tells the label; `p` is corrected for the number of them (Holm), `alarm` is p < LEVEL.

    `majority`: always the largest class, on the same images.
    """

    score: Score
    majority: Score
    images: int
    p: float

    @property
    def alarm(self) -> bool:
        return self.p < LEVEL


def score(right: np.ndarray, groups: np.ndarray) -> Score:
    """The share of `right`, 0..1 (N,), with its interval (`proportion_interval`); nothing of none."""
    if not len(right):
        return Score(np.nan, np.nan, np.nan)
    return Score(float(np.mean(right)), *proportion_interval(right, groups))


def difference(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Score:
    """The share that `first` has more than `second`, of the same images, 0..1 (N,) each, with its 95 % interval."""
    return Score(float(np.mean(first) - np.mean(second)), *difference_interval(first, second, groups))


def find_shortcuts(
    described: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, seed: int = 0
) -> dict[str, Shortcut]:
    """Ask each of `described`, float (N, D) with nan in the rows of images that it says nothing of.

    `labels` int (N,), `groups` (N,). What is known of fewer than a tenth is not asked; what is the same for all images
    tells no more than the largest class.
    """
    from scipy.stats import norm

    found: dict[str, tuple[Score, Score, int]] = {}
    chances: dict[str, float] = {}
    for name, values in described.items():
        known = np.isfinite(values).all(axis=1)
        chosen, classes = values[known], labels[known]
        if known.sum() < max(len(labels) / 10, 2 * FOLDS) or len(np.unique(classes)) < 2:
            continue
        right = largest = classes == np.bincount(classes).argmax()
        if np.ptp(chosen, 0).any():
            right = cross_validated("forest", chosen, classes, groups[known], FOLDS, seed)
            gain = right.astype(float) - largest
            error = standard_error(gain, groups[known])
            chances[name] = float(norm.sf(gain.mean() / error)) if error else float(gain.mean() <= 0)
        found[name] = score(right, groups[known]), score(largest, groups[known]), int(known.sum())
    corrected = dict(zip(chances, holm(list(chances.values())), strict=True))
    return {name: Shortcut(*each, float(corrected.get(name, 1))) for name, each in found.items()}


def in_pixels(images: np.ndarray, rows: np.ndarray, masks: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Describe `rows` of `images` (N, S, S, 3) in 0..255 by what is no leaf: float (len(rows), D) each.

    `masks` bool (len(rows), S, S), true on the leaf; all false where none is given, whose rows are nan.
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
    """Where the frame is, bool (size, size)."""
    frame = np.ones((size, size), bool)
    wide = max(1, round(FRAME * size))
    frame[wide:-wide, wide:-wide] = False
    return frame


def altered(
    images: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What to show a network to learn what it reads: rows int (M,) of the images asked, and these changed.

    `images` (N, S, S, 3) in 0..255 of `labels` int (N,), two classes or more; `masks` as of `in_pixels`. Each gets the
    `frame` or the `centre` (all but the frame) of an image of another class, loses its `colour`, or has its
    `background` grey. `frame_same` is the frame of another image of its own class: what the seam alone costs.
    """
    random = np.random.default_rng(seed)
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
    """Logarithm of the variance of the Laplacian."""
    return float(np.log1p(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()))


def _background(image: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    around = image[~cv2.dilate(leaf.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)]  # masks are rough
    if not leaf.any() or not len(around):
        return np.full(512, np.nan)
    return joint_histograms(around[None, None], np.zeros(1, int))[0]


def file_facts(folder: Path | None, sources: Sequence[str], known: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """What lies about the pixels of image files, of each: `bytes`, `jpeg` (kind and quality of compression), `camera`
    and `date`; and `width` and `height` where they are known.

    `sources` are paths under `folder`, or numbers of images in one file where `folder` is None, which say nothing.
    `known`: columns of the data set's table; `camera` and `date` override the file's EXIF. A missing text is "", a
    missing size nan.
    """
    files = [_described(folder / source) for source in sources] if folder else [{} for _ in sources]
    facts: dict[str, list[Any]] = {"bytes": [each.get("bytes", np.nan) for each in files]}
    for key in ("jpeg", "camera", "date"):
        found = [each.get(key, "") for each in files]
        given = ["" if text != text else str(text) for text in known.get(key, found)]  # nan is no date
        facts[key] = [one or other for one, other in zip(given, found, strict=True)]
    return facts | {key: list(known[key]) for key in ("width", "height") if key in known}


def in_files(facts: Mapping[str, Sequence[Any]], sources: Sequence[str]) -> dict[str, np.ndarray]:
    """Describe image files by their `file_facts` and their names: float (N, D) each, nan where nothing is said."""
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
    if np.isfinite(found["file_size"]).any():  # in one file for all, a name is a number
        found["name"] = _letters(names)
    return {name: values.astype(np.float32) for name, values in found.items()}


def _described(path: Path) -> dict[str, Any]:
    """Bytes, camera, date, and the way of compression of a file; empty where it cannot be read."""
    try:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None) or {}
            exif = image.getexif()
            taken = exif.get_ifd(0x8769).get(0x9003) or exif.get(0x0132) or ""
            quality = " ".join(str(sum(tables[key])) for key in sorted(tables))
            marks = (
                f"{image.format} {image.mode} {quality} {image.info.get('progressive', '')} {image.info.get('dpi', '')}"
            )
            camera = " ".join(str(exif.get(key, "")) for key in (0x010F, 0x0110)).strip("\0 ")
            return {"bytes": path.stat().st_size, "camera": camera, "date": str(taken).strip("\0 "), "jpeg": marks}
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for odd files
        return {}


def _when(date: str) -> list[float]:
    """Return day and hour of an ISO date; nan without a day."""
    try:
        time = datetime.fromisoformat(date)
    except ValueError:
        return [np.nan, np.nan]
    return [float(time.toordinal()), time.hour + time.minute / 60]


def _one_hot(values: Sequence[str]) -> np.ndarray:
    """The commonest fifty values as columns of 0 and 1; a row of nan where nothing is said."""
    said = np.array(values, object)
    names, counts = np.unique(said[said != ""], return_counts=True)
    common = names[np.argsort(-counts, kind="stable")[:50]]
    found = (said[:, None] == common[None]).astype(np.float32) if len(common) else np.zeros((len(said), 1), np.float32)
    found[said == ""] = np.nan
    return found


def _letters(names: Sequence[str]) -> np.ndarray:
    """Which pieces of one to three signs stand in each name, digits all alike: whole numbers are `order`."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer="char", ngram_range=(1, 3), max_features=_LETTERS)
    return counter.fit_transform([f"^{re.sub(r'[0-9]', '0', name)}$" for name in names]).toarray()


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """A key by which file 9 stands before file 10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name.lower()))
