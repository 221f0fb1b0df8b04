"""`leaf lr-range`: run the learning-rate range test on the pipeline's data and propose base and max."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import keras
import typer

from leaf import store
from leaf.errors import LeafError
from leaf.models.build import build_model_from_params
from leaf.params import read_params
from leaf.report.render import standalone
from leaf.report.svg import Frame, figure, line, path, text, ticks
from leaf.train.augmentation import make_augmenter
from leaf.train.callbacks import ProgressBar
from leaf.train.checkpoint import fix_seeds
from leaf.train.dataset import Dataset, batches, read_datasets
from leaf.train.optimizer import Schedule, compile_model, train_step
from leaf.train.recipe import Recipe

app = typer.Typer()


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
    epochs = (
        batches(dataset, recipe.batch_size, recipe.seed, epoch, augmenter=augmenter) for epoch in itertools.count(1)
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


def drawing(test: RangeTest) -> str:
    """Loss against learning rate (logarithmic), raw and smoothed, the proposed base and max marked, as an SVG file."""
    bottom, top = min(test.smoothed), max(test.smoothed)
    margin = 0.1 * (top - bottom)
    low, high = math.log10(test.rates[0]), math.log10(test.rates[-1])
    frame = Frame(64, 56, 632, 300, (low, high), (max(0.0, bottom - margin), top + margin))
    xs = [math.log10(rate) for rate in test.rates]
    title = f"Loss against learning rate, {len(test.rates)} updates (dotted: each update)"
    parts = [text(0, 14, title, "label"), *frame.y_axis(ticks(*frame.y_range)), *frame.x_axis([], "learning rate")]
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        parts.append(line(frame.x(exponent), 56, frame.x(exponent), 356, "grid"))
        parts.append(text(frame.x(exponent), 374, f"1e{exponent}", "tick", "middle"))
    for losses, kind in ((test.losses, "stroke-muted dotted"), (test.smoothed, "stroke-first")):
        within = [min(max(loss, frame.y_range[0]), frame.y_range[1]) for loss in losses]
        parts.append(path(frame.points(xs, within), f"curve {kind}"))
    for name, rate in (("base", test.base), ("max", test.max)):
        x = frame.x(math.log10(rate))
        parts.append(line(x, 50, x, 356, "mark"))
        parts.append(text(x, 44, f"{name} {rate:.1e}", "count", "middle"))
    return standalone(figure(720, 400, f"{title}. Proposed: base {test.base:.1e}, max {test.max:.1e}.", *parts))


def run_range_test(view: Any, figure: str, lowest: float, highest: float, updates: int) -> str:
    """Run the test with the parameters `view` (of the stage train), draw it to `figure`; lines for a person.

    Raises:
        LeafError: where the earlier stages have not run, or the loss never falls.
    """
    if Path(figure).suffix != ".svg":
        raise LeafError(f"{figure}: not a name for an SVG drawing; valid: NAME.svg")
    if view.optimizer == "lbfgs":
        raise LeafError("optimizer: lbfgs has no learning rate; valid for lr-range: adam, adamw")
    classes = len(store.read_classes())
    dataset, _ = read_datasets(classes, view.augmentation.background == "swap")
    fix_seeds(view.seed, view.deterministic)
    model = build_model_from_params(view, classes)
    test = range_test(model, dataset, Recipe.from_params(view), lowest, highest, updates)
    with store.replacing(figure) as partial:
        partial.write_text(drawing(test), encoding="utf-8")
    return (
        f"{len(test.rates)} updates from {lowest:.1e} to {test.rates[-1]:.1e}: the smoothed loss fell from "
        f"{test.smoothed[0]:.3f} to {min(test.smoothed):.3f}; drawn in {figure}\n"
        f"proposed: -S learning_rate.base={test.base:.1e} -S learning_rate.max={test.max:.1e}"
    )


@app.command(epilog="Examples: `leaf lr-range`   `leaf lr-range --highest 0.1 --figure range.svg`")
def command(
    figure: Annotated[str, typer.Option(help="where the drawing goes, an .svg file")] = "lr-range.svg",
    lowest: Annotated[float, typer.Option(help="first learning rate")] = 1e-5,
    highest: Annotated[float, typer.Option(help="last learning rate")] = 1.0,
    updates: Annotated[int, typer.Option(help="updates from the first rate to the last")] = 200,
) -> None:
    """Smith's range test: propose learning_rate.base and learning_rate.max for the data and network of params.yaml."""
    typer.echo(run_range_test(read_params("train"), figure, lowest, highest, updates))
