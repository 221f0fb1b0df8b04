"""Compare image sizes and layer-wise learning-rate decay for the row `transfer`, on folds of a development set.

    python benchmarks/fine_tuning.py ../shared/data [--settings 96:1:1e-4 160:1:1e-4 96:0.8:1e-4 …]

A setting is SIZE:DECAY:MAX. With decay, block b of MobileNetV2's 17 blocks uses the schedule with maximum MAX,
multiplied by DECAY ** (17 − b). Three of nine folds each serve as the training set once, because small training sets
leave more errors to compare. Of the other images, 100 are used to select the epoch and 300 for testing. Images are not
flipped, so that the frozen epochs use cached features.
"""

import argparse
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from runs import keep_table
from sklearn.model_selection import StratifiedGroupKFold

from leaf.evaluate.calibration import log_loss
from leaf.evaluate.statistics import proportion_interval
from leaf.experiments import experiment, with_settings
from leaf.ingest.ingest import ingest
from leaf.models.build import build_model_from_params
from leaf.models.freezing import freeze_backbone
from leaf.models.prediction import predict_probabilities
from leaf.store import read_array, sha256
from leaf.train import optimizer
from leaf.train.dataset import Dataset
from leaf.train.reproducibility import fix_seeds
from leaf.train.trainer import ClassifierTraining, run_training

WEIGHTS = "mobilenet_v2_imagenet_no_top.h5"
BLOCKS, FOLDS, TRAINED, VALIDATION, TESTED = 17, 9, 3, 100, 300
SETTINGS = ("96:1:1e-4", "160:1:1e-4", "96:0.8:1e-4", "96:1:3e-4", "96:0.8:3e-4")
COLUMNS = [
    "image size",
    "decay per block",
    "`learning_rate.max`",
    "accuracy (95% CI)",
    "mean log loss (per training set)",
]


class LayerDecayAdamW(keras.optimizers.AdamW):
    """AdamW that multiplies the learning rate of each trainable variable by its entry in `factors`."""

    factors: Sequence[float] = ()

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate * self.factors[self._get_variable_index(variable)])


def block(path: str) -> int:
    """Return the number of the MobileNetV2 block that contains a variable; the last convolution and the head are 17."""
    if found := re.search(r"block_(\d+)_", path):
        return int(found[1])
    return 0 if re.match(r"(Conv1|bn_Conv1|expanded_conv)", path) else BLOCKS


def measure(data: Path, dataset: str, setting: str) -> list[str]:
    """Return the table row of one setting."""
    size, decay, highest = (float(value) for value in setting.split(":"))
    with tempfile.TemporaryDirectory() as folder:
        index = ingest(str(data / dataset), Path(folder) / "images.npy", "auto", int(size)).index
        images = np.array(read_array(Path(folder) / "images.npy"))
    labels, groups = index["label"].to_numpy(), pd.factorize(index["group"].astype(str))[0]
    row = dict(experiment("transfer").set) | {"weights": str(data / WEIGHTS), "weights_sha256": sha256(data / WEIGHTS)}
    row |= {"image_size": int(size), "learning_rate.max": highest, "balance": "none", "augmentation.flip": "none"}
    params = with_settings({}, row)
    classes = int(labels.max()) + 1

    def make_optimizer(params: Any, schedule: Any) -> keras.optimizers.Optimizer:
        made = LayerDecayAdamW(schedule, weight_decay=params.weight_decay)
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "scale"])
        made.factors = [decay ** (BLOCKS - block(each.path)) for each in model.trainable_variables]
        return made

    optimizer.make_optimizer = make_optimizer
    correct, tested, losses = [], [], []
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(images, labels, groups)
    for number, (others, chosen) in zip(range(TRAINED), folds, strict=False):
        held_out = np.random.default_rng(number).permutation(others)
        fix_seeds(params.seed)
        model = build_model_from_params(params, classes)
        train_set, validation = (
            Dataset(images, rows, labels[rows], classes=classes) for rows in (chosen, held_out[:VALIDATION])
        )
        freeze = partial(freeze_backbone, model, normalization=params.freeze_normalization)
        run_training(ClassifierTraining(model, train_set, validation, params, freeze), quiet=True)
        test = held_out[VALIDATION : VALIDATION + TESTED]
        probabilities = predict_probabilities(model, images[test], batch_size=50)
        correct.append(probabilities.argmax(axis=1) == labels[test])
        tested.append(groups[test])
        losses.append(log_loss(labels[test], probabilities))
        print(setting, number, f"{correct[-1].mean():.4f} {losses[-1]:.4f}", flush=True)
    low, high = proportion_interval(np.concatenate(correct)[None], np.concatenate(tested))
    accuracy = f"{np.mean(correct):.3f} ({low:.3f} to {high:.3f})"
    each = ", ".join(f"{loss:.3f}" for loss in losses)
    return [f"{size:g}", f"{decay:g}", f"{highest:.0e}", accuracy, f"{np.mean(losses):.3f} ({each})"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets and MobileNetV2's weights")
    parser.add_argument("--dataset", default="leaves_by_plant")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="SIZE:DECAY:MAX")
    parser.add_argument("--no-record", dest="record", action="store_false", help="do not update tables.json")
    options = parser.parse_args()
    rows = [measure(options.data, options.dataset, setting) for setting in options.settings]
    keep_table("fine_tuning", COLUMNS, rows, options.record)


if __name__ == "__main__":
    main()
