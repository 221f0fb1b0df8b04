"""Which synthetic images make the training classes equal: a table, before any image is made."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE

from leaf.errors import LeafError
from leaf.resampling.neighbors import PixelNeighbors

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
    pass

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


class TracedSMOTE(SMOTE):
    """SMOTE (Chawla 2002) that says which two images each synthetic one lies between, and how far along.

    imbalanced-learn exposes neither (its issue 772) and stacks all images into a new float array; here its own
    `_make_samples` draws, and what it drew is kept. The same seed gives the same synthetic images.
    """

    def trace(self, members: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw `samples` synthetic images of a class of `members`, (N, D) uint8 or float32.

        Returns parents and neighbours, int64 rows of `members`, and weights, float64 in [0, 1): a synthetic image is
        parent + weight × (neighbour − parent).
        """
        self._validate_estimator()
        self.nn_k_.fit(members)
        neighbours = self.nn_k_.kneighbors(members, return_distance=False)[:, 1:]
        self._make_samples(members, np.int64, 0, members, neighbours, samples)
        return self._drawn

    def _generate_samples(
        self,
        X: np.ndarray,
        nn_data: np.ndarray,  # noqa: ARG002 (imbalanced-learn's interface)
        nn_num: np.ndarray,
        rows: np.ndarray,
        cols: np.ndarray,
        steps: np.ndarray,
        *_: Any,
    ) -> np.ndarray:
        self._drawn = rows, nn_num[rows, cols], steps[:, 0]
        return X[:0]


def smote(members: np.ndarray, samples: int, neighbors: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`TracedSMOTE.trace` with the `neighbors` nearest members by pixels and the random `seed`."""
    sampler = TracedSMOTE(random_state=seed, k_neighbors=PixelNeighbors(neighbors + 1))
    return sampler.trace(members, samples)


_BLOCK_BYTES = 16 << 20  # of float64 working space


def synthesize(images: np.ndarray, plan: pd.DataFrame, out: np.ndarray) -> None:
    """Write parent + weight × (neighbour − parent) for every row of `plan` into `out`.

    `images`: (N, H, W, 3) uint8 or float32. `plan`: `parent,neighbour,weight`, rows of `images`. `out`: (len(plan), H,
    W, 3) of the dtype of `images`; uint8 is rounded, and between two images nothing leaves 0..255. The arithmetic is
    floating point throughout: in uint8 the difference would wrap round without a word.
    """
    parents, neighbours = plan["parent"].to_numpy(), plan["neighbour"].to_numpy()
    weights = plan["weight"].to_numpy(np.float64)
    block = max(1, _BLOCK_BYTES // (8 * int(np.prod(images.shape[1:]))))
    for start in range(0, len(plan), block):
        rows = slice(start, start + block)
        origin = images[parents[rows]].astype(np.float32)
        mixed = (images[neighbours[rows]].astype(np.float32) - origin) * weights[rows, None, None, None]
        mixed += origin
        if out.dtype == np.uint8:
            np.rint(mixed, out=mixed)
        out[rows] = mixed
