"""`leaf lr-range`: run the learning-rate range test on the pipeline's data and propose base and max."""

import itertools
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import keras

from leaf import store
from leaf.errors import LeafError
from leaf.models.backbones import is_detector
from leaf.models.build import build_model_from_params
from leaf.train.augmentation import make_augmenter
from leaf.train.callbacks import ProgressBar
from leaf.train.checkpoint import fix_seeds
from leaf.train.dataset import Dataset, batches, class_weights, read_datasets
from leaf.train.optimizer import Schedule, compile_model, train_step
from leaf.train.recipe import Recipe

WINDOW = 0.1  # share of the updates over which the loss is averaged: single batches differ widely
DIVERGED = 2.0  # the test ends where the averaged loss exceeds that of the first window so many times
BEGUN, ENDED = 0.1, 0.9  # shares of the loss's fall at which the proposed base and max lie


@dataclass(frozen=True)
class RangeTest:
    """The test's curve and what it proposes.

    Attributes:
        rates: learning rate of each update.
        losses: its loss.
        smoothed: the losses' moving average, over the updates before and after.
        base: the rate at which a tenth of the fall is reached: learning has begun.
        max: the rate at which nine tenths are reached, before the loss is lowest and turns ragged.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    base: float
    max: float


def range_test(
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe,
    lowest: float = 1e-5,
    highest: float = 1.0,
    updates: int = 200,
    quiet: bool | None = None,
) -> RangeTest:
    """Train `model` while the rate grows by a constant factor from `lowest` to `highest`; its weights are spent.

    Smith (2015, section 3.3) lets the rate grow in a line; over five orders of magnitude a factor shows more.

    Args:
        model: a new network.
        dataset: what it learns from.
        recipe: batch size, optimizer, augmentation and the like; its learning rate is not used.
        lowest, highest: first and last rate, above 0.
        updates: how many at most; it ends early where the loss diverges.
        quiet: no progress bar; by default there is one only on a terminal.

    Raises:
        LeafError: where the loss never falls, so that there is nothing to propose.
    """
    if not 0 < lowest < highest or updates < 10:
        raise LeafError("lr-range: needs 0 < lowest < highest and at least 10 updates")
    factor = (highest / lowest) ** (1 / (updates - 1))
    rising = Schedule("exponential", 0.0, lowest, gamma=factor, accumulation=recipe.accumulation)
    compile_model(model, recipe, rising)
    augmenter = make_augmenter(recipe.augmentation, recipe.seed)
    weights = class_weights(dataset.all_labels, dataset.classes) if recipe.balance == "class_weight" else None
    epochs = (
        batches(dataset, recipe.batch_size, recipe.seed, epoch, weights, augmenter) for epoch in itertools.count(1)
    )
    losses: list[float] = []
    window = max(round(WINDOW * updates), 1)
    with ProgressBar(1, updates, 0, quiet) as bar:
        for batch in itertools.chain.from_iterable(epochs):
            loss, accuracy = train_step(model, batch, recipe)
            if not math.isfinite(loss):
                break
            losses.append(loss)
            recent = fmean(losses[-window:])
            bar.step(1, recent, accuracy)
            if len(losses) == updates or recent > DIVERGED * fmean(losses[:window]):
                break
    rates = [lowest * factor**number for number in range(len(losses))]
    averaged = smooth(losses, window)
    return RangeTest(rates, losses, averaged, *propose(rates, averaged))


def smooth(losses: list[float], window: int) -> list[float]:
    """Mean of each loss and its neighbours, `window` of them in all and fewer at both ends."""
    half = window // 2
    return [fmean(losses[max(0, at - half) : at + half + 1]) for at in range(len(losses))]


def propose(rates: list[float], smoothed: list[float]) -> tuple[float, float]:
    """Base and max from a smoothed curve: the rates at 10 % and 90 % of the fall from its start to its lowest point."""
    if not smoothed or min(smoothed) >= smoothed[0]:
        raise LeafError("lr-range: the loss does not fall; try a lower --lowest or more --updates")
    lowest = min(smoothed)
    fall = smoothed[0] - lowest

    def reached(share: float) -> float:
        return next(rate for rate, loss in zip(rates, smoothed, strict=True) if loss <= smoothed[0] - share * fall)

    return reached(BEGUN), reached(ENDED)


def run_range_test(params: Any, lowest: float, highest: float, updates: int) -> RangeTest:
    """Run the range test on the data and network of the pipeline, with the parameters of the stage `train`.

    Raises
    ------
    LeafError
        If the earlier stages have not run, the loss never falls, or the recipe has no cross-entropy loss.
    """
    if params.optimizer == "lbfgs":
        raise LeafError("optimizer: lbfgs has no learning rate; lr-range accepts adam and adamw")
    if is_detector(params.backbone):
        raise LeafError(
            f"backbone: {params.backbone}: lr-range needs a classifier; anomaly detectors have another loss"
        )
    classes = len(store.read_classes())
    dataset, _ = read_datasets(classes, params.augmentation.background == "swap")
    fix_seeds(params.seed, params.deterministic)
    model = build_model_from_params(params, classes)
    return range_test(model, dataset, Recipe.from_params(params), lowest, highest, updates)
