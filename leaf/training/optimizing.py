"""Loss, optimizer, one update of the weights and what goes wrong in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.training.distribution import share
from leaf.training.examples import Batch
from leaf.training.recipe import Recipe
from leaf.training.schedules import LearningRate

# Not decayed, as usual: they scale or shift, and are few.
_UNDECAYED = ("bias", "gamma", "beta", "scale")


def optimizer(recipe: Recipe, rate: LearningRate) -> keras.optimizers.Optimizer:
    """A new optimizer of the recipe with `rate` as its schedule; gradients of micro-batches add up."""
    accumulation = recipe.accumulation if recipe.accumulation > 1 else None
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(rate, gradient_accumulation_steps=accumulation)
    decayed = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, gradient_accumulation_steps=accumulation)
    decayed.exclude_from_weight_decay(var_names=list(_UNDECAYED))
    return decayed


def compile_for(model: keras.Model, recipe: Recipe, rate: LearningRate) -> None:
    """Give `model` the loss (categorical cross-entropy on logits) and a new, built optimizer."""
    model.compile(
        optimizer(recipe, rate),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)


def update(model: keras.Model, batch: Batch, recipe: Recipe) -> tuple[float, float]:
    """Update the weights of a compiled `model` once, in as many micro-batches as the recipe says.

    Returns:
        The batch's mean loss and accuracy, as they were before the update.

    Raises:
        LeafError: where memory does not suffice.
    """
    parts = recipe.accumulation
    micro = [np.split(array, parts) for array in batch]
    with one_line_memory(lambda: _advice(recipe)):
        logs = [model.train_on_batch(*share(Batch(*part)), return_dict=True) for part in zip(*micro, strict=True)]
    return sum(log["loss"] for log in logs) / parts, sum(log["accuracy"] for log in logs) / parts


@contextmanager
def one_line_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Turn a backend's out-of-memory error into a LeafError: `advice` gives its line, what to change."""
    try:
        yield
    except Exception as error:
        # TensorFlow, PyTorch and JAX each have an error of their own; JAX's says it in its text alone.
        if type(error).__name__ not in ("ResourceExhaustedError", "OutOfMemoryError") and (
            "RESOURCE_EXHAUSTED" not in str(error)
        ):
            raise
        raise LeafError(advice()) from None


def _advice(recipe: Recipe) -> str:
    images = recipe.micro_batch or recipe.batch_size
    return (
        f"micro_batch: memory does not hold a step of {images} images; set micro_batch to a smaller divisor of "
        f"batch_size ({recipe.batch_size}), for example {_smaller(recipe.batch_size, images)}: "
        "the update stays that of the whole batch"
    )


def _smaller(batch_size: int, images: int) -> int:
    """The largest divisor of `batch_size` that is at most half of `images`."""
    return next((size for size in range(images // 2, 0, -1) if batch_size % size == 0), 1)
