"""What a training starts from: the network that the parameters ask for, and what the earlier stages left."""

from typing import Any

import keras
import numpy as np

from leaf import networks, store
from leaf.errors import LeafError
from leaf.training.examples import Examples

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
