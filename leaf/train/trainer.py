"""Train a classifier in two phases with early stopping, and resume from a checkpoint."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.models.prediction import cached_features, head_on_features, predict_batches
from leaf.params import Params
from leaf.train.augmentation import make_augmenter
from leaf.train.callbacks import Callback, ProgressBar, Result, Row, best_row, loss_and_accuracy_of, stops_early
from leaf.train.checkpoint import Checkpoint, CheckpointFile
from leaf.train.dataset import Dataset, accumulation_steps, batches, steps_per_epoch
from leaf.train.distribution import predict_together, share_of_batch
from leaf.train.learning_rate import Schedule, make_schedule
from leaf.train.linear_probe import features_of
from leaf.train.optimizer import ExponentialMovingAverage, compile_model, train_step
from leaf.train.sigterm import exit_after_sigterm, sigterm_flag


class Training(ABC):
    """The training state between epochs.

    Args:
        model: maps images (N,H,W,3), float32 in 0..255, to logits (N,C).
        dataset: the training data.
        validation: used for early stopping and for selecting the best epoch.
        params: the training parameters.
    """

    schedule: Schedule  # schedule of the current phase
    phase = 2  # 1 while the whole backbone is frozen for `frozen_epochs`, then 2

    def __init__(self, model: keras.Model, dataset: Dataset, validation: Dataset, params: Params) -> None:
        self.model, self.dataset, self.validation, self.params = model, dataset, validation, params
        self.steps = steps_per_epoch(len(dataset), params.batch_size)
        self.augmenter = make_augmenter(params.augmentation, params.seed)
        self.history: list[Row] = []  # one row per finished epoch
        self.best_weights: list[np.ndarray] = []  # the model's weights after the best epoch

    @abstractmethod
    def train_epoch(self, bar: ProgressBar, after_step: Callable[[], None]) -> Row:
        """Train for one epoch, validate, and return its history row; call `after_step` after each update."""

    @abstractmethod
    def variables(self) -> dict[str, list[Any]]:
        """Return lists of the Keras variables to save in a checkpoint, keyed by name."""

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def done(self) -> bool:
        """Whether training is finished: the last epoch is reached, or it stops early."""
        return self.epoch >= self.params.epochs or stops_early(self.history, self.params)

    def finish_epoch(self, loss: float, accuracy: float, validated: dict[str, float]) -> Row:
        """Add a row to the history, copy the weights if the epoch is the best so far, and return the row."""
        epoch = self.epoch + 1
        last_update = (epoch - (self.params.frozen_epochs if self.phase == 2 else 0)) * self.steps - 1
        row = {
            "epoch": epoch,
            "loss": loss,
            "accuracy": accuracy,
            **{f"validation_{name}": value for name, value in validated.items()},
            "learning_rate": float(self.schedule(last_update * accumulation_steps(self.params))),
            "phase": self.phase,
        }
        self.history.append(row)
        if best_row(self.history, self.params.monitor) is row:
            self.best_weights = self.model.get_weights()
        return row

    def checkpoint(self) -> Checkpoint:
        """Return a copy of the state, to be written to disk while the next epoch runs."""
        arrays = {name: list(map(keras.ops.convert_to_numpy, values)) for name, values in self.variables().items()}
        return Checkpoint(list(self.history), {**arrays, "best_weights": self.best_weights})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint. Unlike a `.keras` file, it includes dropout's random state."""
        self.history, self.best_weights = checkpoint.history, checkpoint.arrays["best_weights"]
        for name, variables in self.variables().items():
            for variable, value in zip(variables, checkpoint.arrays[name], strict=True):
                variable.assign(value)

    def result(self) -> Result:
        """Restore the best epoch's weights and return the result."""
        self.model.set_weights(self.best_weights)
        stopped = "early" if stops_early(self.history, self.params) else "epochs"
        return Result(self.history, best_row(self.history, self.params.monitor), stopped, self.steps)


def run_training(
    training: Training,
    checkpoint_file: CheckpointFile | None = None,
    on_epoch_end: Callback | None = None,
    quiet: bool = False,
) -> Result:
    """Train until the last epoch or early stopping, and restore the best epoch's weights.

    The checkpoint is written after each epoch, and training resumes from it. A thread writes it during the next epoch,
    because flushing it to disk takes up to 10% of a short epoch. `on_epoch_end` is called with the row of each finished
    epoch, including those before a resume. With `quiet`, no progress is printed.

    Raises:
        LeafError: if the loss is not finite, or memory is insufficient.
        SystemExit: status 143 after SIGTERM; the checkpoint of the last finished epoch is kept.
    """
    epochs = training.params.epochs
    checkpoint = checkpoint_file.load() if checkpoint_file else None
    if checkpoint:
        training.restore(checkpoint)
        print(f"training: resuming after epoch {len(training.history)} of {epochs}", file=sys.stderr, flush=True)
    if on_epoch_end:
        for row in training.history:
            on_epoch_end(row)
    writing: Future[None] = Future()
    writing.set_result(None)
    # On any exit from this block, the pool waits for the checkpoint being written.
    with (
        sigterm_flag() as received_sigterm,
        ProgressBar(epochs, training.steps, len(training.history), quiet) as bar,
        ThreadPoolExecutor(1) as pool,
    ):

        def after_step() -> None:
            if received_sigterm():
                writing.result()
                exit_after_sigterm(len(training.history) if checkpoint_file else 0)

        while not training.done:
            row = training.train_epoch(bar, after_step)
            bar.epoch_ended(row)
            writing.result()  # raises any write error, such as a full disk
            if checkpoint_file:
                writing = pool.submit(checkpoint_file.save, training.checkpoint())
            if on_epoch_end:
                on_epoch_end(row)
        writing.result()
    return training.result()


class ClassifierTraining(Training):
    """Training of a classifier; `freeze` freezes the first N operations of the backbone, or `all`."""

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        validation: Dataset,
        params: Params,
        freeze: Callable[[int | str], None],
    ) -> None:
        super().__init__(model, dataset, validation, params)
        self.freeze = freeze
        self.ema = ExponentialMovingAverage(model, params.weight_averaging) if params.weight_averaging else None
        self.phase = 0

    def variables(self) -> dict[str, list[Any]]:
        return {"model": self.model.variables, "optimizer": self.learner.optimizer.variables}

    def train_epoch(self, bar: ProgressBar, after_step: Callable[[], None]) -> Row:
        epoch, params = self.epoch + 1, self.params
        self._start_phase(epoch)
        seen, loss_sum, accuracy_sum = 0, 0.0, 0.0
        for batch in batches(self.train_set, params, epoch, self.augmenter, share_of_batch(params)):
            loss, accuracy = train_step(self.learner, batch, params)
            seen, loss_sum, accuracy_sum = seen + 1, loss_sum + loss, accuracy_sum + accuracy
            check_finite(loss, epoch, seen, self.steps)
            if self.ema:
                self.ema.update()
            bar.step(epoch, loss_sum / seen, accuracy_sum / seen)
            after_step()
        with self.ema.applied() if self.ema else nullcontext():
            validated = loss_and_accuracy(self.learner, self.validation_set, params.micro_batch or params.batch_size)
            return self.finish_epoch(loss_sum / seen, accuracy_sum / seen, validated)

    def checkpoint(self) -> Checkpoint:
        checkpoint = super().checkpoint()
        if self.ema:
            checkpoint.arrays["ema"] = self.ema.arrays()
        return checkpoint

    def restore(self, checkpoint: Checkpoint) -> None:
        self._start_phase(len(checkpoint.history))
        super().restore(checkpoint)
        if self.ema:
            self.ema.restore(checkpoint.arrays["ema"], self.epoch * self.steps)

    def _start_phase(self, epoch: int) -> None:
        """If `epoch` is in a new phase, freeze the backbone and compile the model as the phase requires."""
        phase = 1 if epoch <= self.params.frozen_epochs else 2
        if phase == self.phase:
            return
        self.phase = phase
        depth = "all" if phase == 1 else self.params.freeze_depth
        self.freeze(depth)
        self.learner, self.train_set, self.validation_set = self.model, self.dataset, self.validation
        if depth == "all":
            self._use_cached_features()
        self.schedule = make_schedule(self.params, phase, self.steps, len(self.dataset))
        compile_model(self.learner, self.params, self.schedule)

    def _use_cached_features(self) -> None:
        """Train the head on cached features while the whole backbone is frozen, or print why this is not possible."""
        head = None if self.augmenter or keras.distribution.distribution() else head_on_features(self.model)
        if head:
            features = partial(features_of, partial(cached_features, self.model))
            self.learner = head
            self.train_set, self.validation_set = (
                Dataset(features(each), np.arange(len(each)), each.labels, classes=each.classes)
                for each in (self.dataset, self.validation)
            )
            note = "its features are computed once and cached"
        elif self.augmenter:
            note = "its features are recomputed in every epoch, because the images are augmented"
        else:
            note = "its features are recomputed in every epoch, because it has random layers or runs on several devices"
        print(f"training: the backbone is frozen; {note}", file=sys.stderr, flush=True)


def check_finite(loss: float, epoch: int, step: int, steps: int) -> None:
    """Raise LeafError if the loss of step `step` (from 1) is not finite."""
    if not math.isfinite(loss):
        raise LeafError(
            f"training: loss {loss} in epoch {epoch}, step {step} of {steps}. "
            "Lower learning_rate.max, or set precision to float32."
        )


def loss_and_accuracy(model: keras.Model, dataset: Dataset, batch_size: int) -> dict[str, float]:
    """Return the unweighted mean cross-entropy and accuracy of `model` on `dataset`, without label smoothing."""
    return loss_and_accuracy_of(predict_logits(model, dataset, batch_size), dataset.labels)


def predict_logits(model: keras.Model, dataset: Dataset, batch_size: int) -> np.ndarray:
    """Return the logits for each image of `dataset`, (n,C) float64."""
    if keras.distribution.distribution():
        logits = predict_together(model, dataset.take, len(dataset), batch_size)
    else:
        rows = np.split(np.arange(len(dataset)), range(batch_size, len(dataset), batch_size))
        logits = predict_batches(model, map(dataset.take, rows))
    return np.concatenate(list(logits)).astype(np.float64)
