"""The training data and its batches, which depend only on the seed and epoch, so a resumed run reproduces them."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from leaf import store
from leaf.errors import LeafError
from leaf.params import Params
from leaf.train.segmentation import estimate_mask


class Batch(NamedTuple):
    """The data of one update: images (B,H,W,3) 0..255, one-hot labels (B,C) and sample weights (B,).

    Images are uint8 if the data set's images are; the network casts them on the device. Labels and weights are float32.
    `masks` (B,H,W) are defined as in `Dataset`.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    masks: np.ndarray | None = None


# Augments a batch, given its epoch, step and, if it is one process's share, its positions in the global batch.
Augmenter = Callable[[Batch, int, int, np.ndarray | None], Batch]


@dataclass(frozen=True)
class Dataset:
    """Labeled images: selected rows of an array, followed by synthetic images."""

    images: np.ndarray  # (N,H,W,3) uint8 or float32, 0..255; a memory map is read batch by batch
    rows: np.ndarray  # (n,) int: r selects row r of `images` if r < N, otherwise row r − N of `synthetic`
    labels: np.ndarray  # (n,) int, 0 … classes − 1
    synthetic: np.ndarray | None = None  # (S,H,W,3) uint8 or float32, 0..255
    classes: int = 2  # number of classes
    masks: np.ndarray | None = None  # (n,H,W) bool, true on the leaf, all false if unknown; None if not needed
    groups: np.ndarray | None = None  # (n,) int; only for training images. A synthetic image has its parent's group

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at `indices` (0 … n − 1): (B,H,W,3), uint8 if all images are, otherwise float32."""
        rows = self.rows[indices]
        real = rows < len(self.images)
        kind = self.images.dtype if self.synthetic is None else np.result_type(self.images, self.synthetic)
        out = np.empty((len(rows), *self.images.shape[1:]), np.uint8 if kind == np.uint8 else np.float32)
        out[real] = self.images[rows[real]]
        if self.synthetic is not None and not real.all():
            out[~real] = self.synthetic[rows[~real] - len(self.images)]
        return out


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return weights (C,), n / (C · count), that give all classes the same total weight; 0 for an absent class."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 0.0)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of updates in an epoch, including a padded last batch."""
    return -(-images // batch_size)


def accumulation_steps(params: Params) -> int:
    """Return the number of micro-batches in an update."""
    return params.batch_size // params.micro_batch if params.micro_batch else 1


def batch_indices(images: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the shuffled indices of the images in each batch of an epoch, int64 (steps, batch_size).

    The last batch is padded with images from the start of the epoch, so that only one shape is compiled and
    micro-batches are full.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(images)
    return np.resize(shuffled, (steps_per_epoch(images, batch_size), batch_size))


READERS = 4  # threads, each prefetching one batch


def batches(
    dataset: Dataset,
    params: Params,
    epoch: int,
    augmenter: Augmenter | None = None,
    positions: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Yield the batches of an epoch, prefetched by threads, in an order that depends on `params.seed` and `epoch`.

    `positions` (n,) are the positions in each batch that this process reads, or None for all. `augmenter` is called
    from a single thread, because Keras layers have a random state.
    """
    labels = np.eye(dataset.classes, dtype=np.float32)[dataset.labels]
    weight = np.ones(dataset.classes, np.float32)
    if params.balance == "class_weight":
        weight = class_weights(dataset.labels, dataset.classes).astype(np.float32)
    indices = batch_indices(len(dataset), params.batch_size, params.seed, epoch)
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
    """Read the training data set with its synthetic images, and the validation data set.

    With `with_masks`, the training images have the masks from the `ingest` stage or, if missing, estimated ones.

    Raises:
        LeafError: if a file is missing or damaged, or a split is empty.
    """
    images = store.read_array(IMAGES)
    decisions = store.read_table(DECISIONS, ["image", "label", "group"]).set_index("image")
    splits = store.read_table(SPLITS, ["image", "split"], text=["split"])
    synthetic = store.read_array(SYNTHETIC)
    made = store.read_table(SYNTHETIC_INDEX, ["image", "label", "parent"]).sort_values("image")
    if len(synthetic) != len(made):
        raise LeafError(f"{SYNTHETIC_INDEX}: {len(made)} rows for {len(synthetic)} images. Run `dvc repro balance`.")

    def rows_and_labels(split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = splits.loc[splits["split"] == split, "image"].to_numpy(np.int64)
        if not len(rows):
            hint = "Increase validation_size." if split == "validation" else "Reduce validation_size or test_size."
            raise LeafError(f"{SPLITS}: the {split} split is empty. {hint}")
        return rows, decisions.loc[rows, "label"].to_numpy(np.int64)

    rows, labels = rows_and_labels("train")
    masks = _masks(images, rows) if with_masks else None
    groups = decisions.loc[np.concatenate([rows, made["parent"].to_numpy(np.int64)]), "group"].to_numpy()
    rows = np.concatenate([rows, len(images) + np.arange(len(synthetic))])
    labels = np.concatenate([labels, made["label"].to_numpy(np.int64)])
    train = Dataset(images, rows, labels, synthetic, classes, masks, groups)
    return train, Dataset(images, *rows_and_labels("validation"), classes=classes)


def _masks(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return provided or estimated masks for `rows` of `images`, bool (n,H,W).

    Raises:
        LeafError: if fewer than two images have a mask.
    """
    given = store.read_array(MASKS)
    masks = np.array(given[rows]) if len(given) else np.zeros((len(rows), *images.shape[1:3]), bool)
    unknown = np.flatnonzero(~masks.any(axis=(1, 2)))
    with ThreadPoolExecutor() as pool:
        estimated = pool.map(lambda row: estimate_mask(images[row]), rows[unknown])
        for place, leaf in zip(unknown, estimated, strict=True):
            masks[place] = leaf
    if masks.any(axis=(1, 2)).sum() < 2:
        raise LeafError(
            "augmentation.background: swap requires leaves in at least two images, but fewer were found. Add masks, or "
            "set augmentation.background to keep."
        )
    return masks
