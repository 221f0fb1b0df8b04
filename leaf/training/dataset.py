"""Images on disk and their labels, cut into batches.

The batches of an epoch follow from the seed and the epoch's number alone, so a run that goes on in epoch 7 sees
what an uninterrupted one does.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from leaf import networks, store
from leaf.errors import LeafError

CLASSES = 2


class Batch(NamedTuple):
    """What one update learns from: images (B,H,W,3) float32 0..255, labels (B,2) one-hot, weights (B,), float32."""

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class Augment(Protocol):
    """Changes a batch at random; the same epoch and step give the same change."""

    def __call__(self, batch: Batch, epoch: int, step: int) -> Batch: ...


@dataclass(frozen=True)
class Examples:
    """Labelled images: rows of an array, and any number of synthetic images after them.

    Args:
        images: (N,H,W,3) uint8 or float32, 0..255; a memory map is read batch by batch.
        rows: (n,) whole numbers, the rows of `images` that are examples.
        labels: (n,) 0 or 1.
        synthetic: (S,H,W,3) further images, each of them an example.
        synthetic_labels: (S,) 0 or 1.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    synthetic: np.ndarray | None = None
    synthetic_labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows) + (0 if self.synthetic is None else len(self.synthetic))

    @property
    def all_labels(self) -> np.ndarray:
        """(len,) int64: the labels of the real, then of the synthetic examples."""
        parts = [self.labels] if self.synthetic_labels is None else [self.labels, self.synthetic_labels]
        return np.concatenate(parts).astype(np.int64)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The images at `positions` (0 … len − 1), in that order: (B,H,W,3) float32."""
        real = positions < len(self.rows)
        out = np.empty((len(positions), *self.images.shape[1:]), np.float32)
        out[real] = self.images[self.rows[positions[real]]]
        if self.synthetic is not None and not real.all():
            out[~real] = self.synthetic[positions[~real] - len(self.rows)]
        return out


def class_weights(labels: np.ndarray) -> np.ndarray:
    """(2,) weights that give both classes an equal say: n / (2 · count), 0 for a class without members."""
    counts = np.bincount(labels, minlength=CLASSES)
    return np.where(counts > 0, len(labels) / (CLASSES * np.maximum(counts, 1)), 0.0)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Updates in one epoch. The last batch is filled up, see `order`."""
    return -(-examples // batch_size)


def order(examples: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Positions of the examples in each batch of an epoch: (steps, batch_size), shuffled.

    The last batch is filled with the first examples of the same order: every batch is whole, so that no step is
    compiled twice, no update rests on a handful of images, and micro-batches add up.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(examples)
    steps = steps_per_epoch(examples, batch_size)
    return np.resize(shuffled, (steps, batch_size))


def batches(
    examples: Examples,
    batch_size: int,
    seed: int,
    epoch: int,
    weights: np.ndarray | None = None,
    augment: Augment | None = None,
) -> Iterator[Batch]:
    """The batches of an epoch; the next one is cut and changed while the network works on the last.

    Args:
        examples: what to cut from.
        batch_size: images in each batch.
        seed, epoch: what the order depends on.
        weights: (2,) weights of the classes.
        augment: changes each batch.
    """
    labels = np.eye(CLASSES, dtype=np.float32)[examples.all_labels]
    weight = np.ones(CLASSES, np.float32) if weights is None else weights.astype(np.float32)
    positions = order(len(examples), batch_size, seed, epoch)

    def cut(step: int) -> Batch:
        chosen = labels[positions[step]]
        batch = Batch(examples.take(positions[step]), chosen, chosen @ weight)
        return augment(batch, epoch, step) if augment else batch

    with ThreadPoolExecutor(1, "batches") as worker:
        ahead = worker.submit(cut, 0)
        for step in range(len(positions)):
            batch = ahead.result()
            if step + 1 < len(positions):
                ahead = worker.submit(cut, step + 1)
            yield batch


def endless(examples: Examples, batch_size: int, seed: int, augment: Augment | None = None) -> Iterator[Batch]:
    """The batches of epoch after epoch."""
    for epoch in count(1):
        yield from batches(examples, batch_size, seed, epoch, augment=augment)


IMAGES = "data/ingested/images.npy"
DECISIONS = "data/cleaned/decisions.csv"
SPLITS = "data/split/splits.csv"
SYNTHETIC = "data/balanced/images.npy"
SYNTHETIC_INDEX = "data/balanced/index.csv"
FILES = (IMAGES, DECISIONS, SPLITS, SYNTHETIC, SYNTHETIC_INDEX)


_NETWORK = (
    *("image_size", "dropout", "weights", "weights_sha256", "freeze_depth"),
    *("freeze_normalization", "head_initializer", "precision", "rematerialize", "seed"),
)


def build_network(view: Any) -> keras.Model:
    """Build the network that the parameters of a stage ask for."""
    return networks.build(view.backbone, **{name: getattr(view, name) for name in _NETWORK})


def read_inputs() -> tuple[Examples, Examples]:
    """The training examples, synthetic ones among them, and the validation examples, from the stages' outputs.

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

    learnt = Examples(images, *rows_and_labels("train"), synthetic, synthetic_labels.to_numpy(np.int64))
    return learnt, Examples(images, *rows_and_labels("validation"))
