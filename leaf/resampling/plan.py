"""Which synthetic images make the training classes equal: a table, before any image is made."""

from typing import Literal

import numpy as np
import pandas as pd

from leaf.errors import LeafError

Method = Literal["smote", "none", "oversample", "class_weight"]
METHODS: tuple[Method, ...] = ("smote", "none", "oversample", "class_weight")
COLUMNS = ["image", "label", "parent", "neighbour", "weight"]


def plan_images(
    images: np.ndarray,
    numbers: np.ndarray,
    labels: np.ndarray,
    method: Method,
    classes: list[str],
    neighbors: int = 5,
    seed: int = 42,
) -> pd.DataFrame:
    """Plan the synthetic images that bring the smaller class up to the larger.

    `images`: (N, H, W, 3) uint8 or float32, a memory map as a rule; only rows of the smaller class are read.
    `numbers`: the training images' rows in it, int64 (M,); `labels`: theirs, 0 or 1, (M,).
    `smote` lies between neighbours of one class, `oversample` copies whole rounds of the class so that no image is
    copied twice before each was once, `none` and `class_weight` plan nothing.

    Returns `image,label,parent,neighbour,weight`: `parent` and `neighbour` are rows of `images`, float64 `weight` says
    how far from one to the other (0 for a copy). Raises LeafError where a class is empty or too small for SMOTE.
    """
    order = np.argsort(numbers)  # the plan must not depend on the order of the table's rows
    numbers, labels = np.asarray(numbers)[order], np.asarray(labels)[order]
    counts = np.bincount(labels, minlength=2)
    if method in ("none", "class_weight") or counts[0] == counts[1]:
        return _table(0, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    minority = int(counts.argmin())
    members = numbers[labels == minority]
    missing = int(counts.max() - counts.min())
    if len(members) == 0:
        raise LeafError(f"balance: class {classes[minority]} has no training image to make more of; add photographs")
    if method == "oversample":
        parents = _whole_rounds(members, missing, seed)
        return _table(minority, parents, parents, np.zeros(missing))
    if len(members) <= neighbors:
        raise LeafError(
            f"balance: class {classes[minority]} has {len(members)} training images, and SMOTE with smote_neighbors "
            f"{neighbors} needs at least {neighbors + 1}; lower smote_neighbors or set balance to oversample or "
            "class_weight"
        )
    from leaf.resampling.smote import smote  # imports scikit-learn: seconds that the other methods need not pay

    flat = images[members].reshape(len(members), -1)
    rows, others, weights = smote(flat, missing, neighbors, seed)
    return _table(minority, members[rows], members[others], weights)


def _whole_rounds(members: np.ndarray, missing: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    rounds = [random.permutation(members) for _ in range(-(-missing // len(members)))]
    return np.concatenate(rounds)[:missing]


def _table(label: int, parents: np.ndarray, neighbours: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    columns = (np.arange(len(parents)), np.full(len(parents), label), parents, neighbours, weights)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
