"""Test early stopping and the choice of the best epoch."""

import math

import pytest

from leaf.train.callbacks import EarlyStopping


def run(early_stopping: EarlyStopping, values: list[float]) -> int:
    """Return the epoch after which training stops, or 0 if it does not."""
    for epoch, value in enumerate(values, 1):
        early_stopping.improved({"epoch": epoch, early_stopping.monitor: value})
        if early_stopping.should_stop:
            return epoch
    return 0


def test_training_stops_after_patience_epochs_without_improvement() -> None:
    early_stopping = EarlyStopping("validation_accuracy", 3)
    assert run(early_stopping, [0.5, 0.7, 0.6, 0.65, 0.7, 0.9]) == 5
    assert early_stopping.best_epoch == 2


def test_a_tie_keeps_the_earlier_epoch() -> None:
    early_stopping = EarlyStopping("validation_accuracy", 9)
    run(early_stopping, [0.7, 0.8, 0.8])
    assert early_stopping.best_epoch == 2


def test_a_lower_loss_is_better() -> None:
    early_stopping = EarlyStopping("validation_loss", 9)
    run(early_stopping, [0.7, 0.5, 0.6])
    assert early_stopping.best_epoch == 2


@pytest.mark.parametrize("patience", [0, 1])
def test_patience_0_and_1_stop_at_the_first_epoch_without_improvement(patience: int) -> None:
    assert run(EarlyStopping("validation_accuracy", patience), [0.5, 0.6, 0.6]) == 3


def test_a_non_finite_value_is_no_improvement() -> None:
    early_stopping = EarlyStopping("validation_loss", 9)
    run(early_stopping, [math.nan, 0.9, math.nan])
    assert early_stopping.best_epoch == 2
