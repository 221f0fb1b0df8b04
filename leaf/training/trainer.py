"""Fit a network to examples: two phases, early stopping, the best epoch's weights, and a state to go on from."""

import math
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Protocol

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.training import augmentation
from leaf.training import dataset as cutting
from leaf.training.callbacks import Bar, Patience, figures
from leaf.training.dataset import Examples
from leaf.training.distribution import noticing_sigterm_together
from leaf.training.optimizer import Average, LearningRate, compile_for, schedule, update
from leaf.training.recipe import Recipe
from leaf.training.state import STATUS, Keeper, State

Row = dict[str, Any]


@dataclass
class Result:
    """What a training gave; the model itself holds the best epoch's weights.

    Attributes:
        history: one row per epoch: epoch, loss, accuracy, validation_loss, validation_accuracy, learning_rate (of
            the epoch's last update), phase.
        best: the best epoch's row.
        stopped: `early` or `epochs`.
        steps_per_epoch: updates in an epoch.
    """

    history: list[Row]
    best: Row
    stopped: str
    steps_per_epoch: int


class Run(Protocol):
    """A training under way: all that changes from epoch to epoch."""

    steps: int
    history: list[Row]

    @property
    def over(self) -> bool:
        """Whether no further epoch is to come."""

    def one_epoch(self, bar: Bar, after_step: Callable[[], None]) -> Row:
        """Train and judge one epoch; its row, which it has put into `history`."""

    def state(self) -> State:
        """Everything that `restore` needs, copied: it is written while the next epoch runs."""

    def restore(self, state: State) -> None:
        """Go on from a state."""

    def result(self) -> Result:
        """Put the best epoch's weights back, and say what the training gave."""


def run_epochs(
    run: Run, epochs: int, keeper: Keeper | None, follow: Callable[[Row], None] | None, quiet: bool | None
) -> Result:
    """Drive `run` to its end, from the state that `keeper` holds if there is one; `epochs` is the most there are.

    A state is written while the next epoch runs: flushed to a disk, it may take a tenth of a short epoch's time.

    Raises:
        SystemExit: status 143 after SIGTERM, the last finished epoch being kept.
    """
    state = keeper.load() if keeper else None
    if state:
        run.restore(state)
        print(f"training: resuming after epoch {len(run.history)} of {epochs}", file=sys.stderr, flush=True)
    if follow:
        for row in run.history:
            follow(row)
    writing: Future[None] = Future()
    writing.set_result(None)
    # Left for whatever reason, the pool ends only when the state that it writes is whole.
    with (
        noticing_sigterm_together() as stopped,
        Bar(epochs, run.steps, len(run.history), quiet) as bar,
        ThreadPoolExecutor(1) as pool,
    ):

        def after_step() -> None:
            if stopped():
                writing.result()
                _leave(len(run.history), keeper)

        while not run.over:
            row = run.one_epoch(bar, after_step)
            writing.result()  # raises what went wrong in it, a full disk for one
            if keeper:
                writing = pool.submit(keeper.save, run.state())
            if follow:
                follow(row)
        writing.result()
    return run.result()


def _leave(epoch: int, keeper: Keeper | None) -> NoReturn:
    """End the process, with a marker beside the state of the last finished `epoch`."""
    if keeper and epoch:
        keeper.mark_requeue(epoch)
    kept = f"epoch {epoch} is kept, the same command goes on from there" if keeper and epoch else "nothing is kept"
    print(f"training: stopped by SIGTERM, requeue: {kept}", file=sys.stderr, flush=True)
    raise SystemExit(STATUS)


def train(
    model: keras.Model,
    examples: Examples,
    validation: Examples,
    recipe: Recipe,
    *,
    freeze: Callable[[int | str], None],
    keeper: Keeper | None = None,
    follow: Callable[[Row], None] | None = None,
    quiet: bool | None = None,
) -> Result:
    """Fit `model` to `examples` by `recipe`; afterwards it holds the weights of the best epoch.

    Args:
        model: images (N,H,W,3) float32 0..255 to logits (N,2).
        examples: what it learns from.
        validation: what early stopping and the best epoch go by; never learnt from.
        recipe: how.
        freeze: freezes the first so many operations of the backbone, or `all`.
        keeper: where the state is kept after each epoch; a state that it holds is gone on from.
        follow: is given each finished epoch's row, those of before a kill included.
        quiet: no progress bar; by default there is one only on a terminal.

    Raises:
        LeafError: where the loss is not finite, or memory does not suffice.
        SystemExit: status 143 after SIGTERM, the last finished epoch being kept.
    """
    return run_epochs(_Run(model, examples, validation, recipe, freeze), recipe.epochs, keeper, follow, quiet)


class _Run:
    """A training under way: all that changes from epoch to epoch."""

    def __init__(
        self,
        model: keras.Model,
        examples: Examples,
        validation: Examples,
        recipe: Recipe,
        freeze: Callable[[int | str], None],
    ) -> None:
        self.model, self.examples, self.validation = model, examples, validation
        self.recipe, self.freeze = recipe, freeze
        self.steps = cutting.steps_per_epoch(len(examples), recipe.batch_size)
        self.augment = augmentation.augment(recipe.augmentation, recipe.seed)
        self.weights = cutting.class_weights(examples.all_labels) if recipe.balance == "class_weight" else None
        self.patience = Patience(recipe.monitor, recipe.patience)
        self.average = Average(model, recipe.weight_averaging) if recipe.weight_averaging else None
        self.history: list[Row] = []
        self.best: list[np.ndarray] = []
        self.phase = 0
        self.rate: LearningRate

    @property
    def epoch(self) -> int:
        """The last finished epoch."""
        return len(self.history)

    @property
    def early(self) -> bool:
        """Whether patience ran out; the epochs with the backbone frozen are not judged."""
        return self.epoch > self.recipe.frozen_epochs and self.patience.over

    @property
    def over(self) -> bool:
        return self.epoch >= self.recipe.epochs or self.early

    def one_epoch(self, bar: Bar, after_step: Callable[[], None]) -> Row:
        epoch = self.epoch + 1
        if self.recipe.phase(epoch) != self.phase:
            self._enter(self.recipe.phase(epoch))
        seen, loss_sum, accuracy_sum = 0, 0.0, 0.0
        for batch in cutting.batches(
            self.examples, self.recipe.batch_size, self.recipe.seed, epoch, self.weights, self.augment
        ):
            loss, accuracy = update(self.model, batch, self.recipe)
            seen, loss_sum, accuracy_sum = seen + 1, loss_sum + loss, accuracy_sum + accuracy
            if not math.isfinite(loss):
                raise LeafError(
                    f"training: a loss of {loss} in epoch {epoch}, step {seen} of {self.steps}; "
                    "lower learning_rate.max, or set precision to float32"
                )
            if self.average:
                self.average.update()
            bar.step(epoch, loss_sum / seen, accuracy_sum / seen)
            after_step()
        with self.average.applied() if self.average else nullcontext():
            validated = figures(self.model, self.validation, self.recipe.micro_batch or self.recipe.batch_size)
            row = {
                "epoch": epoch,
                "loss": loss_sum / seen,
                "accuracy": accuracy_sum / seen,
                **{f"validation_{name}": value for name, value in validated.items()},
                "learning_rate": self._last_rate(epoch),
                "phase": self.phase,
            }
            self.history.append(row)
            if self.patience.better(row):
                self.best = self.model.get_weights()
        return row

    def state(self) -> State:
        """Everything that `restore` needs, as arrays and plain values."""
        arrays = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        kept = {name: [keras.ops.convert_to_numpy(value) for value in values] for name, values in arrays.items()}
        kept["best"] = self.best
        notes: Row = {"history": list(self.history), "patience": asdict(self.patience)}
        if self.average:
            kept["average"] = self.average.arrays()
            notes["averaged"] = self.average.updates
        return State(notes, kept)

    def restore(self, state: State) -> None:
        """Go on from a state. `model.variables` hold the random state of dropout, unlike a `.keras` file."""
        self.history = state.notes["history"]
        self.patience = Patience(**state.notes["patience"])
        self.best = state.arrays["best"]
        self._enter(self.recipe.phase(self.epoch), first=False)
        for name, variables in (("model", self.model.variables), ("optimizer", self.model.optimizer.variables)):
            for variable, value in zip(variables, state.arrays[name], strict=True):
                variable.assign(value)
        if self.average:
            self.average.restore(state.arrays["average"], state.notes["averaged"])

    def result(self) -> Result:
        self.model.set_weights(self.best)
        best = self.history[self.patience.best_epoch - 1]
        return Result(self.history, best, "early" if self.early else "epochs", self.steps)

    def _enter(self, phase: int, first: bool = True) -> None:
        """Begin a phase (`first`), or come back to it: freeze, take its optimizer and schedule."""
        self.phase = phase
        self.freeze("all" if phase == 1 else self.recipe.freeze_depth)
        self.rate = schedule(self.recipe, phase, self.steps, len(self.examples))
        compile_for(self.model, self.recipe, self.rate)
        if first:
            self.patience.wait = 0

    def _last_rate(self, epoch: int) -> float:
        """The learning rate of the epoch's last update."""
        before = self.recipe.frozen_epochs if self.phase == 2 else 0
        update = (epoch - before) * self.steps - 1
        return float(self.rate(update * self.recipe.accumulation))
