"""Run the learning-rate range test (Smith 2015) on the pipeline's data to propose `learning_rate.base` and `max`."""

import itertools
import math
from dataclasses import dataclass
from statistics import fmean

import keras

from leaf import store
from leaf.errors import LeafError
from leaf.models.backbones import is_detector
from leaf.models.build import build_model_from_params
from leaf.params import Params
from leaf.train.augmentation import make_augmenter
from leaf.train.callbacks import ProgressBar
from leaf.train.dataset import Dataset, accumulation_steps, batches, read_datasets
from leaf.train.learning_rate import Schedule
from leaf.train.optimizer import compile_model, train_step
from leaf.train.reproducibility import fix_seeds

WINDOW = 0.1  # fraction of the updates over which the loss is averaged
DIVERGED = 2.0  # the test ends if the averaged loss exceeds this multiple of the first window's loss
BASE_AT, MAX_AT = 0.1, 0.9  # fractions of the decrease in loss at which the rates are proposed


@dataclass(frozen=True)
class RangeTest:
    """A range test's curve and the proposed rates."""

    rates: list[float]  # learning rate of each update
    losses: list[float]  # loss of each update
    smoothed: list[float]  # centered moving average of the losses
    base: float  # the rate after 10% of the decrease in loss, when learning has begun
    max: float  # the rate after 90% of the decrease, before the loss becomes unstable


def range_test(
    model: keras.Model,
    dataset: Dataset,
    params: Params,
    lowest: float,
    highest: float,
    updates: int,
) -> RangeTest:
    """Train `model` while the learning rate increases exponentially from `lowest` to `highest`.

    Smith (2015, section 3.3) increases the rate linearly, which samples low rates poorly over five orders of magnitude.
    The test ends after `updates` updates, or earlier if the loss diverges, and leaves the model unusable.

    Raises:
        LeafError: if an argument is out of range or the loss never decreases.
    """
    if not 0 < lowest < highest or updates < 10:
        raise LeafError("lr-range: --lowest must be above 0 and below --highest, and --updates at least 10.")
    factor = (highest / lowest) ** (1 / (updates - 1))
    rising = Schedule("exponential", 0.0, lowest, gamma=factor, accumulation=accumulation_steps(params))
    compile_model(model, params, rising)
    augmenter = make_augmenter(params.augmentation, params.seed)
    epochs = (batches(dataset, params, epoch, augmenter) for epoch in itertools.count(1))
    losses: list[float] = []
    window = max(round(WINDOW * updates), 1)
    with ProgressBar(1, updates) as bar:
        for batch in itertools.chain.from_iterable(epochs):
            loss, accuracy = train_step(model, batch, params)
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
    """Return the centered moving average over `window` losses, or fewer at both ends."""
    half = window // 2
    return [fmean(losses[max(0, at - half) : at + half + 1]) for at in range(len(losses))]


def propose(rates: list[float], smoothed: list[float]) -> tuple[float, float]:
    """Return base and max: the rates at 10% and 90% of the decrease from the start to the minimum."""
    if not smoothed or min(smoothed) >= smoothed[0]:
        raise LeafError("lr-range: the loss does not decrease. Try a lower --lowest or more --updates.")
    decrease = smoothed[0] - min(smoothed)

    def reached(share: float) -> float:
        return next(rate for rate, loss in zip(rates, smoothed, strict=True) if loss <= smoothed[0] - share * decrease)

    return reached(BASE_AT), reached(MAX_AT)


def run_range_test(params: Params, lowest: float, highest: float, updates: int) -> RangeTest:
    """Run the range test on the pipeline's data and network with the `train` stage's parameters.

    Raises:
        LeafError: if the earlier stages have not run, the optimizer is `lbfgs`, the backbone is a detector, or the loss
            never decreases.
    """
    if params.optimizer == "lbfgs":
        raise LeafError("optimizer: lbfgs has no learning rate; valid for lr-range: adam, adamw")
    if is_detector(params.backbone):
        raise LeafError(
            f"backbone: {params.backbone}: lr-range requires a classifier; anomaly detectors use a different loss."
        )
    classes = len(store.read_classes())
    dataset, _ = read_datasets(classes, params.augmentation.background == "swap")
    fix_seeds(params.seed, params.deterministic)
    model = build_model_from_params(params, classes)
    return range_test(model, dataset, params, lowest, highest, updates)
