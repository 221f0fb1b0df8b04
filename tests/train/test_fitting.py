"""Test classifier training: history, reproducibility, early stopping and errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.params import Params
from leaf.train.dataset import batches
from leaf.train.learning_rate import make_schedule
from leaf.train.optimizer import compile_model, train_step
from leaf.train.trainer import ClassifierTraining, loss_and_accuracy, run_training

RATE = {"base": 1e-3, "max": 1e-2, "step_epochs": 2}
RECIPE = Params(epochs=4, patience=9, batch_size=16, learning_rate=RATE)
pytestmark = pytest.mark.slow


def changed(params: Any, **values: Any) -> Any:
    return params.model_copy(update=values)


def fit(network: Any, dataset: Any, recipe: Params, **options: Any) -> tuple[Any, Any]:
    model = options.pop("model", None) or network()
    freeze = options.pop("freeze", lambda depth: None)
    training = ClassifierTraining(model, dataset(72, 0), dataset(40, 1), recipe, freeze)
    return model, run_training(training, quiet=True, **options)


@pytest.fixture(scope="module")
def fitted(network: Callable[..., Any], dataset: Callable[..., Any]) -> tuple[Any, Any]:
    return fit(network, dataset, RECIPE)


def test_the_history_has_a_row_per_epoch(fitted: Any) -> None:
    _, result = fitted
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert result.stopped == "epochs"
    assert result.steps_per_epoch == 5


def test_the_history_has_the_learning_rate_of_the_last_update(fitted: Any) -> None:
    _, result = fitted
    # updates 4, 9, 14 and 19; half a cycle is 10 updates
    expected = [1e-3 + 9e-3 * share for share in (0.4, 0.9, 0.6, 0.1)]
    assert [row["learning_rate"] for row in result.history] == pytest.approx(expected, rel=1e-5)


def test_the_best_epochs_weights_are_restored(fitted: Any, dataset: Any) -> None:
    model, result = fitted
    again = loss_and_accuracy(model, dataset(40, 1), 16)
    assert again["accuracy"] == result.best["validation_accuracy"]
    assert again["accuracy"] == max(row["validation_accuracy"] for row in result.history)
    assert again["loss"] == pytest.approx(result.best["validation_loss"], abs=1e-6)


def test_training_is_bit_identical_only_with_the_same_seed(fitted: Any, network: Any, dataset: Any) -> None:
    model, result = fitted
    again, repeated = fit(network, dataset, RECIPE)
    other, _ = fit(network, dataset, changed(RECIPE, seed=7))
    assert repeated.history == result.history
    assert equal_weights(model, again)
    assert not equal_weights(model, other)


def equal_weights(one: Any, other: Any) -> bool:
    return all((a == b).all() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_training_stops_early_without_improvement(network: Any, dataset: Any) -> None:
    constant = changed(RECIPE.learning_rate, policy="constant", base=0.0, max=1e-12)
    _, result = fit(network, dataset, changed(RECIPE, patience=2, epochs=9, learning_rate=constant))
    assert result.stopped == "early"
    assert len(result.history) == result.best["epoch"] + 2


def test_patience_restarts_after_the_frozen_epochs(network: Any, dataset: Any) -> None:
    frozen: list[Any] = []
    recipe = changed(RECIPE, epochs=3, frozen_epochs=2, frozen_learning_rate=0.05, freeze_depth=1, patience=1)
    _, result = fit(network, dataset, recipe, freeze=frozen.append)
    assert frozen == ["all", 1]
    assert [(row["phase"], round(row["learning_rate"], 4)) for row in result.history[:2]] == [(1, 0.05)] * 2
    assert result.history[2]["phase"] == 2


def test_non_finite_loss_is_rejected_in_one_line(network: Any, dataset: Any) -> None:
    model = network()
    model.layers[-1].bias.assign([np.nan, 0.0])
    with pytest.raises(LeafError, match=r"loss nan in epoch 1, step 1 of 5.*learning_rate\.max"):
        fit(network, dataset, RECIPE, model=model)


def test_out_of_memory_names_micro_batch(network: Any, dataset: Any) -> None:
    class ResourceExhaustedError(Exception):
        """An error named like the one that TensorFlow raises."""

    model = network()

    def fail(*arrays: Any, **options: Any) -> None:
        raise ResourceExhaustedError("OOM when allocating tensor with shape[512,24,24,192]\n")

    model.train_on_batch = fail
    with pytest.raises(LeafError, match=r"micro_batch: .* 16 images.* 8\b"):
        fit(network, dataset, RECIPE, model=model)


def test_another_error_in_a_step_keeps_its_traceback(network: Any, dataset: Any) -> None:
    model = network()

    def fail(*arrays: Any, **options: Any) -> None:
        raise ValueError("other error")

    model.train_on_batch = fail
    with pytest.raises(ValueError, match="other error"):
        fit(network, dataset, RECIPE, model=model)


def test_eight_micro_batches_of_64_give_the_update_of_a_batch_of_512(network: Any, dataset: Any) -> None:
    whole = changed(RECIPE, epochs=2, batch_size=512)
    ends = [flat(network(dropout=0.0, normalized=False))]
    for recipe in (whole, changed(whole, micro_batch=64)):
        model = network(dropout=0.0, normalized=False)
        training = ClassifierTraining(model, dataset(1000, 0), dataset(40, 1), recipe, lambda depth: None)
        run_training(training, quiet=True)
        ends.append(flat(model))
    start, at_once, in_parts = ends
    np.testing.assert_allclose(in_parts, at_once, atol=2e-5)
    assert np.abs(at_once - start).max() > 1e-3


def test_a_compiled_step_reads_the_loss_once_per_update(network: Any, dataset: Any) -> None:
    recipe = changed(RECIPE, epochs=1, batch_size=16, micro_batch=4)
    losses, calls = [], 0
    for recompile in (True, False):
        model = network(dropout=0.0)
        compile_model(model, recipe, make_schedule(recipe, 2, 5, 80))
        step = model.train_on_batch

        def counted(*arrays: Any, step: Any = step, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return step(*arrays, **options)

        model.train_on_batch = counted
        for batch in batches(dataset(48, 0), changed(recipe, seed=0), 1):
            if recompile:
                model.train_function = None
            losses.append(train_step(model, batch, recipe))
    np.testing.assert_allclose(losses[3:], losses[:3], rtol=1e-6)
    assert calls == 3 + 1  # only the first micro-batch of the first update, before the step is compiled


def flat(model: Any) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def test_weight_averaging_validates_the_average(network: Any, dataset: Any) -> None:
    plain, _ = fit(network, dataset, changed(RECIPE, epochs=1, weight_averaging=0))
    averaged, result = fit(network, dataset, changed(RECIPE, epochs=1, weight_averaging=0.9))
    assert not equal_weights(plain, averaged)
    assert loss_and_accuracy(averaged, dataset(40, 1), 16)["accuracy"] == result.best["validation_accuracy"]


def test_the_loss_falls_with_adamw_and_every_augmentation(network: Any, dataset: Any) -> None:
    changes = changed(RECIPE.augmentation, rotation=20, zoom=0.1, translation=0.1, contrast=0.2, mixup=0.2, cutmix=1.0)
    recipe = changed(RECIPE, optimizer="adamw", weight_decay=0.05, label_smoothing=0.1, augmentation=changes)
    _, result = fit(network, dataset, changed(recipe, epochs=6, balance="class_weight"))
    losses = [row["loss"] for row in result.history]
    assert np.mean(losses[3:]) < np.mean(losses[:3])
