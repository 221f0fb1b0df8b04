"""The training data set: images on disk with their labels, cut into batches.

The batches of an epoch depend only on the seed and the epoch's number, so a training that is resumed in epoch 7 gets
the same batches as an uninterrupted one.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from leaf import store
from leaf.errors import LeafError


class Batch(NamedTuple):
    """The data of one update: images (B,H,W,3) 0..255, one-hot labels (B,C) and sample weights (B,).

    Images are uint8 where the data set's are, and the network casts them on its device; all else is float32. `masks`
    are those of `Dataset`.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    masks: np.ndarray | None = None


class Augmenter(Protocol):
    """Changes a batch at random; the same epoch, step and positions give the same change.

    `positions` (B,) are the places of the batch's images in the whole batch, where this is one process's share of it.
    """

    def __call__(self, batch: Batch, epoch: int, step: int, positions: np.ndarray | None = None) -> Batch: ...


@dataclass(frozen=True)
class Dataset:
    """Labelled images: rows of an array, followed by any number of synthetic images.

    Args:
        images: (N,H,W,3) uint8 or float32, 0..255; a memory map is read batch by batch.
        rows: (n,) int, the rows of `images` that belong to the data set.
        labels: (n,) int, 0 … `classes` − 1.
        synthetic: (S,H,W,3) further images, all of which belong to the data set.
        synthetic_labels: (S,) likewise.
        classes: how many there are.
        masks: (n,H,W) bool, true on the leaf, all false where it is not known; None where no background is swapped.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    synthetic: np.ndarray | None = None
    synthetic_labels: np.ndarray | None = None
    classes: int = 2
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows) + (0 if self.synthetic is None else len(self.synthetic))

    @property
    def all_labels(self) -> np.ndarray:
        """(len,) int64: the labels of the real images, then those of the synthetic ones."""
        parts = [self.labels] if self.synthetic_labels is None else [self.labels, self.synthetic_labels]
        return np.concatenate(parts).astype(np.int64)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` (0 … len − 1), in that order: (B,H,W,3), uint8 where all are, else float32."""
        real = indices < len(self.rows)
        kind = np.result_type(self.images, *([] if self.synthetic is None else [self.synthetic]))
        out = np.empty((len(indices), *self.images.shape[1:]), np.uint8 if kind == np.uint8 else np.float32)
        out[real] = self.images[self.rows[indices[real]]]
        if self.synthetic is not None and not real.all():
            out[~real] = self.synthetic[indices[~real] - len(self.rows)]
        return out


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """(C,) weights that give all classes the same total weight: n / (C · count), 0 for a class without images."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 0.0)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Updates in one epoch. The last batch is filled up, see `batch_indices`."""
    return -(-images // batch_size)


def batch_indices(images: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Indices of the images in each batch of an epoch: int64 (steps, batch_size), shuffled.

    The last batch is filled with the first images of the same order. So every batch is full: no step is compiled
    twice, no update depends on a few images only, and micro-batches add up.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(images)
    return np.resize(shuffled, (steps_per_epoch(images, batch_size), batch_size))


READERS = 4  # threads that read batches ahead, each one of its own


def batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    epoch: int,
    weights: np.ndarray | None = None,
    augmenter: Augmenter | None = None,
    positions: np.ndarray | None = None,
) -> Iterator[Batch]:
    """The batches of an epoch; threads prepare the next ones while the network learns from this one.

    Args:
        dataset: where the images come from.
        batch_size: images in each batch.
        seed, epoch: what the order depends on.
        weights: (C,) weights of the classes.
        augmenter: changes each batch, one after the other: Keras's layers have a random state.
        positions: (n,) the places in each batch that this process learns from; None for all. Others are not read.
    """
    labels = np.eye(dataset.classes, dtype=np.float32)[dataset.all_labels]
    weight = np.ones(dataset.classes, np.float32) if weights is None else weights.astype(np.float32)
    indices = batch_indices(len(dataset), batch_size, seed, epoch)

    if positions is not None:
        indices = indices[:, positions]

    def read(step: int) -> Batch:
        chosen = labels[indices[step]]
        masks = None if dataset.masks is None else dataset.masks[indices[step]]
        return Batch(dataset.take(indices[step]), chosen, chosen @ weight, masks)

    def change(step: int, batch: Future[Batch]) -> Batch:
        return augmenter(batch.result(), epoch, step, positions) if augmenter else batch.result()

    with ThreadPoolExecutor(READERS, "read") as readers, ThreadPoolExecutor(1, "change") as changer:
        ahead: deque[Future[Batch]] = deque()
        for step in range(len(indices) + READERS):
            if step < len(indices):
                ahead.append(changer.submit(change, step, readers.submit(read, step)))
            if step >= READERS:
                yield ahead.popleft().result()


IMAGES = "data/ingested/images.npy"
MASKS = "data/ingested/masks.npy"
DECISIONS = "data/cleaned/decisions.csv"
SPLITS = "data/split/splits.csv"
SYNTHETIC = "data/balanced/images.npy"
SYNTHETIC_INDEX = "data/balanced/index.csv"
FILES = (IMAGES, DECISIONS, SPLITS, SYNTHETIC, SYNTHETIC_INDEX)


def read_datasets(classes: int, with_masks: bool = False) -> tuple[Dataset, Dataset]:
    """The training data set, synthetic images included, and the validation data set, from the stages' outputs.

    `with_masks`: the training images have masks, those of the ingest stage or, where it has none, estimated ones.

    Raises:
        LeafError: where a file is missing or damaged, or a split has no image.
    """
    images = store.read_array(IMAGES)
    decisions = store.read_table(DECISIONS, ["image", "label"]).set_index("image")
    splits = store.read_table(SPLITS, ["image", "split"], text=["split"])
    synthetic = store.read_array(SYNTHETIC)
    synthetic_labels = store.read_table(SYNTHETIC_INDEX, ["image", "label"]).sort_values("image")["label"]
    if len(synthetic) != len(synthetic_labels):
        raise LeafError(f"{SYNTHETIC_INDEX}: {len(synthetic_labels)} rows for {len(synthetic)} images")

    def rows_and_labels(split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = splits.loc[splits["split"] == split, "image"].to_numpy(np.int64)
        if not len(rows):
            raise LeafError(f"{SPLITS}: no image in the {split} split; training needs some")
        return rows, decisions.loc[rows, "label"].to_numpy(np.int64)

    rows, labels = rows_and_labels("train")
    masks = _masks(images, rows) if with_masks else None
    train = Dataset(images, rows, labels, synthetic, synthetic_labels.to_numpy(np.int64), classes, masks)
    return train, Dataset(images, *rows_and_labels("validation"), classes=classes)


def _masks(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where the leaf is in `rows` of `images`, bool (n,H,W): as given, else estimated. Raises LeafError for none."""
    given = store.read_array(MASKS)
    masks = np.array(given[rows]) if len(given) else np.zeros((len(rows), *images.shape[1:3]), bool)
    unknown = np.flatnonzero(~masks.any(axis=(1, 2)))
    with ThreadPoolExecutor() as pool:
        estimated = pool.map(lambda row: estimate_mask(images[row]), rows[unknown])
        for place, leaf in zip(unknown, estimated, strict=True):
            masks[place] = leaf
    if masks.any(axis=(1, 2)).sum() < 2:
        raise LeafError(
            "augmentation.background: swap, and no leaf is found in the images; valid: masks of them, or keep"
        )
    return masks


FULL = 0.95  # of an image: a leaf that takes so much leaves no background
EDGE = 0.05  # of the side: so wide a border is taken for background where nothing else is known


def estimate_mask(image: np.ndarray) -> np.ndarray:
    """Where the leaf probably is in an image (H,W,3) 0..255, bool (H,W), by GrabCut (Rother 2004) from within `EDGE`.

    All false where it finds less than a twentieth of the image, or more than `FULL`: then nothing is known.
    """
    import cv2

    pixels = np.ascontiguousarray(np.rint(image).astype(np.uint8)[..., ::-1])
    wide = max(1, round(EDGE * len(image)))
    found = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    found[wide:-wide, wide:-wide] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)  # of this thread: its k-means draws
    cv2.grabCut(pixels, found, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    leaf = found == cv2.GC_PR_FGD
    return leaf if 0.05 < leaf.mean() < FULL else np.zeros_like(leaf)


def read_groups() -> np.ndarray:
    """The groups (n,) of the training images, in their order; a synthetic image is in the group of its parent."""
    groups = store.read_table(DECISIONS, ["image", "group"]).set_index("image")["group"]
    splits = store.read_table(SPLITS, ["image", "split"], text=["split"])
    parents = store.read_table(SYNTHETIC_INDEX, ["image", "parent"]).sort_values("image")["parent"]
    train = splits.loc[splits["split"] == "train", "image"].tolist()
    return groups.loc[[*train, *parents.astype(int)]].to_numpy()
