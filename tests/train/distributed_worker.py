"""Train with `distribution: data_parallel` as one of several processes, and write the results as JSON.

python distributed_worker.py OUT

Keras reads the other processes from its KERAS_DISTRIBUTION_… environment variables.
"""

import hashlib
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from leaf.errors import LeafError
from leaf.params import Params
from leaf.train.dataset import Dataset
from leaf.train.distribution import PROCESSES, set_up_distribution
from leaf.train.reproducibility import fix_seeds
from leaf.train.trainer import ClassifierTraining, run_training

SIZE, IMAGES, VALIDATION, EPOCHS = 16, 64, 40, 3
PLAIN: dict[str, Any] = {"augmentation": {"flip": "none"}}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "averaged": {
        "weight_averaging": 0.9,
        "frozen_epochs": 1,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "micro_batch": 8,
    },
    "changed": {"augmentation": {"rotation": 10, "mixup": 0.2}},
}


def recipe(**choices: Any) -> Params:
    rate = {"base": 1e-3, "max": 1e-2, "step_epochs": 2}
    fixed: dict[str, Any] = {"epochs": EPOCHS, "patience": 9, "learning_rate": rate, "distribution": "data_parallel"}
    return Params(**{"batch_size": 16, **fixed, **choices})


def dataset(count: int, seed: int) -> Dataset:
    """Return noise images; those of class 1 are slightly redder."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    images = random.integers(0, 200, (count, SIZE, SIZE, 3))
    images[labels == 1, :, :, 0] += 30
    return Dataset(images.astype(np.uint8), np.arange(count), labels)


def network() -> keras.Model:
    parts = [keras.Input((SIZE, SIZE, 3)), layers.Dropout(0.1), layers.Rescaling(1 / 255)]
    parts += [layers.Conv2D(4, 5, 4, activation="relu"), layers.GlobalAveragePooling2D(), layers.BatchNormalization()]
    return keras.Sequential([*parts, layers.Dense(2)])


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.astype(np.uint8).tobytes()).hexdigest()[:16]


def counting(seen: Counter[str]) -> None:
    """Count each image that reaches Keras's training step in this process."""
    step = keras.Sequential.train_on_batch

    def counted(self: Any, images: np.ndarray, *rest: Any, **options: Any) -> Any:
        seen.update(digest(image) for image in images)
        return step(self, images, *rest, **options)

    keras.Sequential.train_on_batch = counted


def counting_reads(read: Counter[int]) -> None:
    """Count the images that this process reads from each data set, which is identified by its size."""
    take = Dataset.take

    def counted(self: Dataset, indices: np.ndarray) -> np.ndarray:
        read[len(self)] += len(indices)
        return take(self, indices)

    Dataset.take = counted


def refused() -> str:
    """Return the error for a batch size that two processes cannot share evenly. The processes still join."""
    try:
        set_up_distribution(recipe(batch_size=15))
    except (LeafError, SystemExit) as error:
        os.environ.pop(PROCESSES, None)  # the processes have joined; they can join only once
        return str(error)
    return ""


def main(out: Path) -> None:
    seen: Counter[str] = Counter()
    counting(seen)
    read: Counter[int] = Counter()
    counting_reads(read)
    fix_seeds(0)  # before the processes join, as in the `train` stage; otherwise, Keras chooses a seed
    outcome: dict[str, Any] = {"refused": refused(), "curves": {}}
    for name, choices in RECIPES.items():
        seen.clear()
        read.clear()
        fix_seeds(0)
        set_up_distribution(recipe(**choices))
        data = dataset(IMAGES, 0), dataset(VALIDATION, 1)
        result = run_training(ClassifierTraining(network(), *data, recipe(**choices), lambda _: None), quiet=True)
        keys = ("loss", "accuracy", "validation_loss", "validation_accuracy")
        outcome["curves"][name] = [[row[key] for key in keys] for row in result.history]
        if name == "plain":
            outcome |= {"seen": dict(seen), "read": [read[IMAGES], read[VALIDATION]]}
    outcome["imported"] = sorted({"tensorflow", "torch"} & sys.modules.keys())
    out.write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
