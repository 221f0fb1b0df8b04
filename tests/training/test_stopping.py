"""Early stopping and the best epoch."""

import math

import pytest

from leaf.training.callbacks import Patience


def follow(patience: Patience, values: list[float]) -> int:
    """The epoch after which training stops, 0 for none."""
    for epoch, value in enumerate(values, 1):
        patience.better({"epoch": epoch, patience.monitor: value})
        if patience.over:
            return epoch
    return 0


def test_it_stops_after_so_many_epochs_without_a_better_value() -> None:
    patience = Patience("validation_accuracy", 3)
    assert follow(patience, [0.5, 0.7, 0.6, 0.65, 0.7, 0.9]) == 5
    assert patience.best_epoch == 2


def test_a_tie_keeps_the_earlier_epoch() -> None:
    patience = Patience("validation_accuracy", 9)
    follow(patience, [0.7, 0.8, 0.8])
    assert patience.best_epoch == 2


def test_a_lower_loss_is_better() -> None:
    patience = Patience("validation_loss", 9)
    follow(patience, [0.7, 0.5, 0.6])
    assert patience.best_epoch == 2


@pytest.mark.parametrize("patience", [0, 1])
def test_patience_of_none_or_one_stops_at_the_first_epoch_that_is_no_better(patience: int) -> None:
    assert follow(Patience("validation_accuracy", patience), [0.5, 0.6, 0.6]) == 3


def test_a_value_that_is_not_finite_is_never_better_than_one_that_is() -> None:
    patience = Patience("validation_loss", 9)
    follow(patience, [math.nan, 0.9, math.nan])
    assert patience.best_epoch == 2
