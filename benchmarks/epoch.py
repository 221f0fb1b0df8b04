"""Compare an epoch of `train` with the same training steps on one batch in memory.

An epoch reads the memory-mapped images, flips them, updates the weights, predicts the validation images, writes the
checkpoint of the previous epoch and logs the curves. The peer runs the same number of updates and validation passes of
an identical network on one batch in memory. The two sides alternate within one training run. In each round, the first
epoch is not timed. The second is timed and writes the checkpoint of the first. After the second checkpoint is written,
the steps of the peer are timed. The first round compiles the model and is not counted.

The recorded row includes validation on both sides. The script also prints the ratio to the updates without validation.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from measure import arguments, detail, report, row

from leaf.models.build import build_model
from leaf.models.freezing import freeze_backbone
from leaf.params import Params
from leaf.store import new_array, read_array
from leaf.train.callbacks import dvclive_callback
from leaf.train.checkpoint import Checkpoint, locked_checkpoint
from leaf.train.dataset import Dataset, batches, steps_per_epoch
from leaf.train.learning_rate import make_schedule
from leaf.train.optimizer import compile_model
from leaf.train.reproducibility import fix_seeds
from leaf.train.trainer import ClassifierTraining, run_training

# (network, real and synthetic training images, validation images, side, counted epochs); bench: as in the default run
SIZES = {
    "tiny": ("cnn_small", 48, 16, 16, 32, 1),
    "bench": ("convnext_atto", 315, 83, 73, 96, 5),
    "full": ("convnext_atto", 2744, 1138, 700, 96, 5),
}


def write_images(path: Path, count: int, side: int) -> np.ndarray:
    """Write random images (count, side, side, 3) uint8 to a file and memory-map it, as `train` does."""
    with new_array(path, (count, side, side, 3), np.uint8) as out:
        out[:] = np.random.default_rng(0).integers(0, 256, out.shape, np.uint8)
    return read_array(path)


class Alternation:
    """Record the time of every second epoch and of the peer's steps after it, in seconds."""

    def __init__(
        self, copy: keras.Model, dataset: Dataset, passes: int, recipe: Params, save: Callable[[Checkpoint], None]
    ) -> None:
        self.batch = next(batches(dataset, recipe, 1))
        self.steps, self.passes = steps_per_epoch(len(dataset), recipe.batch_size), passes
        self.copy = copy
        compile_model(self.copy, recipe, make_schedule(recipe, 2, self.steps, len(dataset)))
        self.keep, self.kept = save, 0
        self.whole: list[float] = []
        self.updates: list[float] = []
        self.validation: list[float] = []
        self.began = 0.0

    def save(self, state: Checkpoint) -> None:
        """Write a checkpoint and count it."""
        self.keep(state)
        self.kept += 1

    def on_epoch_end(self, epoch: int) -> None:
        """After an even epoch, record its time and run the peer's steps. Then start timing the next epoch."""
        now = time.perf_counter()
        if epoch % 2 == 0:
            self.whole.append(now - self.began)
            while self.kept < epoch:  # wait for the checkpoint, so that writing it does not slow down the peer
                time.sleep(0.01)
            self._bare()
        self.began = time.perf_counter()

    def _bare(self) -> None:
        moments = [time.perf_counter()]
        for _ in range(self.steps):
            self.copy.train_on_batch(*self.batch, return_dict=True)
        moments.append(time.perf_counter())
        for _ in range(self.passes):
            self.copy.predict_on_batch(self.batch.images)
        moments.append(time.perf_counter())
        self.updates.append(moments[1] - moments[0])
        self.validation.append(moments[2] - moments[1])


def main() -> None:
    options = arguments(__doc__)
    network, real, synthetic, held_out, side, counted = SIZES[options.size]
    epochs = 2 * (counted + 1)
    recipe = Params(epochs=epochs, patience=epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder / "images.npy", real + held_out, side)
        made = write_images(folder / "synthetic.npy", synthetic, side)
        labels = np.arange(real + held_out) % 2
        rows = np.concatenate([np.arange(real), len(images) + np.arange(synthetic)])
        dataset = Dataset(images, rows, np.concatenate([labels[:real], np.ones(synthetic, np.int64)]), made)
        validation = Dataset(images, np.arange(real, real + held_out), labels[real:])
        fix_seeds(recipe.seed)
        model, copy = build_model(network, side), build_model(network, side)
        with locked_checkpoint("epoch", folder / "state") as checkpoint_file, dvclive_callback(folder / "live") as log:
            sides = Alternation(copy, dataset, -(-held_out // recipe.batch_size), recipe, checkpoint_file.save)
            checkpoint_file.save = sides.save

            def on_epoch_end(finished: dict[str, Any]) -> None:
                log(finished)
                sides.on_epoch_end(finished["epoch"])

            training = ClassifierTraining(model, dataset, validation, recipe, partial(freeze_backbone, model))
            run_training(training, checkpoint_file, on_epoch_end)
    whole, updates, passes = sides.whole[1:], sides.updates[1:], sides.validation[1:]
    strict = statistics.median(whole) / statistics.median(updates)
    print(f"epoch: {strict:.3f} times the updates alone, with validation counted as overhead")
    bare = [one + other for one, other in zip(updates, passes, strict=True)]
    detail("epoch", {"images": len(dataset), "seconds": statistics.median(whole), "to_updates": strict}, options.record)
    report(row("epoch", whole, bare, "<= 1.1"), options.record)


if __name__ == "__main__":
    main()
