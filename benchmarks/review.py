"""Measure the share of planted errors in the first cases: in the order of `leaf review`, by confidence, and at random.

    python benchmarks/review.py --data ../shared/data

The errors are wrong labels, copies and outliers among synthetic leaves and, with --data, 5% flipped labels in
leaves_1041.

Reviewing a case finds all errors in its images. Images outside the queue follow as further cases, ordered by
confidence, as in the page's grid. `confidence` orders the kept images by the held-out probability of their label,
lowest first; `random` is the mean of 200 random orders. Held-out probabilities come from a logistic regression in five
folds, on color and shape and, for leaves_1041, also on features of a frozen MobileNetV2 (ImageNet, 96 pixels).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from images import as_jpeg, clean_images, image_index, ingest_images, mobilenet_features
from runs import keep_table, table_parser

from leaf.clean.same_photo import descriptors
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.baselines import joint_histograms
from leaf.review import queue
from leaf.synthesize import ImageCounts, draw_cartoon, draw_dataset

CLASSES = ("healthy", "unhealthy")
# flipped labels, added copies and added outliers, as shares of the number of leaves
WRONG, COPIED, ODD = 0.05, 0.03, 0.02


@dataclass(frozen=True)
class Planted:
    """Images with planted errors, uint8 (N, S, S, 3), their given labels, int (N,), and their errors ("" for none)."""

    images: np.ndarray
    labels: np.ndarray
    error: np.ndarray


def plant(leaves: int, size: int, seed: int) -> Planted:
    """Draw leaves, flip some labels, and add outliers and JPEG copies, half of which have another label."""
    random = np.random.default_rng(seed)
    images, labels = draw_dataset(ImageCounts(leaves // 2, leaves - leaves // 2, 0, 0, 0), size, seed)
    labels = labels.astype(int)
    wrong, copied = np.split(random.permutation(leaves)[: round(leaves * (WRONG + COPIED))], [round(leaves * WRONG)])
    labels[wrong] = 1 - labels[wrong]
    copies = [as_jpeg(images[row], 80) for row in copied]
    of_copies = labels[copied] ^ (np.arange(len(copied)) % 2)
    odd = [_odd(random, size, number) for number in range(round(leaves * ODD))]
    error = np.array([""] * leaves + ["copy, same label"] * len(copies) + ["outlier"] * len(odd), object)
    error[wrong] = "wrong label"
    error[leaves : leaves + len(copies)][1::2] = "copy, different label"
    everything = np.concatenate([images, np.stack(copies), np.stack(odd)])
    return Planted(everything, np.concatenate([labels, of_copies, random.integers(0, 2, len(odd))]), error)


def _odd(random: np.random.Generator, size: int, number: int) -> np.ndarray:
    """Draw an outlier: a cartoon in other colors, a plain color, or noise."""
    kind = number % 3
    if kind == 0:
        return np.roll(draw_cartoon(number // 3 % 2, size), random.integers(3), axis=-1) ^ random.integers(
            64, dtype=np.uint8
        )
    if kind == 1:
        return np.full((size, size, 3), random.integers(0, 256, 3), np.uint8)
    return random.integers(0, 256, (size, size, 3), dtype=np.uint8)


def color_and_shape(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the features that `leaf review` uses without a trained model."""
    return np.concatenate([descriptors(images, np.arange(len(images)))[rows], joint_histograms(images, rows)], axis=1)


def in_order(
    planted: Planted, features: np.ndarray | None = None, known: bool = True
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the review queue, and the images ordered by confidence, kept images first."""
    images, count = planted.images, len(planted.images)
    index = image_index(images, planted.labels).assign(flags="")
    cleaned = clean_images(images, index)
    decisions = cleaned.decisions
    kept = np.flatnonzero(decisions["kept"])
    labels, groups = decisions["label"].to_numpy(), decisions["group"].to_numpy()
    probabilities = np.full((count, 2), np.nan)
    learned = color_and_shape(images, kept) if features is None else features[kept]
    probabilities[kept] = queue.class_probabilities(learned, labels[kept], groups[kept])
    held_out = queue.assess_labels(labels, probabilities)
    unknown = np.zeros(count, bool)
    if known:
        train, validation = kept[::2], kept[1::2]
        parts = [part for rows in (train, validation) for part in (ood.image_statistics(images[rows]), images[rows])]
        unknown[kept] = ~ood.fit(*parts, images[:0]).pixels_in_distribution(images[kept])
    reached = queue.reach(index["hash"].to_numpy(), decisions["kept"].eq(1).to_numpy(), None)
    table = queue.cases(index, decisions, cleaned.pairs, held_out, unknown, reached, CLASSES)
    order = np.argsort(np.nan_to_num(held_out.own, nan=2), kind="stable")
    return table, order


def found(reviewed: list[set[int]], errors: set[int]) -> float:
    """Return the share of errors in the reviewed cases, each a set of images."""
    return len(errors.intersection(*[set().union(*reviewed)])) / len(errors)


def shares(planted: Planted, table: pd.DataFrame, order: np.ndarray, count: int) -> dict[str, dict[str, float]]:
    """Return the share of each kind of error found in the first `count` cases, in each order."""
    cases = [{one, other} - {-1} for one, other in zip(table["image"], table["other"], strict=True)]
    seen = set().union(*cases)
    by_queue = [*cases, *({image} for image in order.tolist() if image not in seen)][:count]
    random = np.random.default_rng(0)
    chances = [[{image} for image in random.permutation(len(order))[:count].tolist()] for _ in range(200)]
    result = {}
    for kind in ("all", *sorted(set(planted.error) - {""})):
        errors = set(np.flatnonzero(planted.error == kind if kind != "all" else planted.error != "").tolist())
        result[kind] = {
            "queue": found(by_queue, errors),
            "confidence": found([{image} for image in order[:count].tolist()], errors),
            "random": float(np.mean([found(reviewed, errors) for reviewed in chances])),
        }
    return result


def flipped(data: Path) -> tuple[Planted, np.ndarray]:
    """Return leaves_1041 with 5% of the labels flipped (not those of cartoons), and frozen features of all images."""
    images, ingested = ingest_images(data / "leaves_1041.npz", 96, CLASSES)
    index = ingested.index
    leaves = np.flatnonzero(index.groupby("hash")["hash"].transform("size") < 20)
    wrong = np.random.default_rng(2023).choice(leaves, round(0.05 * len(leaves)), replace=False)
    labels, error = index["label"].to_numpy(int).copy(), np.full(len(images), "", object)
    labels[wrong], error[wrong] = 1 - labels[wrong], "wrong label"
    return Planted(images, labels, error), mobilenet_features(images, data)


def found_rows(title: str, planted: Planted, table: pd.DataFrame, order: np.ndarray, count: int) -> list[list[str]]:
    """Return the rows of the table for the first `count` cases."""
    kinds = shares(planted, table, order, count)
    numbers = [int((planted.error == kind).sum() if kind != "all" else (planted.error != "").sum()) for kind in kinds]
    return [
        [f"{title}, {count} cases", kind, str(number), *(f"{row[way]:.0%}" for way in row)]
        for (kind, row), number in zip(kinds.items(), numbers, strict=True)
    ]


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder of leaves_1041.npz and MobileNetV2's weights")
    parser.add_argument("--leaves", type=int, default=1000, help="number of synthetic leaves")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    planted = plant(options.leaves, 64, options.seed)
    rows = found_rows(f"{options.leaves:,} synthetic leaves", planted, *in_order(planted), len(planted.images) // 10)
    if options.data:
        planted, features = flipped(options.data)
        for title, given in (("frozen MobileNetV2", (features,)), ("color and shape", ())):
            order = in_order(planted, *given, known=False)
            rows += found_rows(f"leaves_1041, {title}", planted, *order, 100)[:1]
    columns = ["data set", "errors", "planted", "expected gain", "confidence", "random"]
    keep_table("review", columns, rows, options.record)


if __name__ == "__main__":
    main()
