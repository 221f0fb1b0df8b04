"""Test early stopping and the choice of the best epoch."""

import math

import pytest

from leaf.params import Params
from leaf.train.callbacks import best_row, stops_early


def run(values: list[float], monitor: str = "validation_accuracy", **changes: int) -> tuple[int, int]:
    """Return the epoch after which training stops, or 0 if it does not, and the best epoch until then."""
    params = Params(monitor=monitor, **changes)
    history = [
        {"epoch": epoch, monitor: value, "phase": 1 if epoch <= params.frozen_epochs else 2}
        for epoch, value in enumerate(values, 1)
    ]
    end = next((epoch for epoch in range(len(values) + 1) if stops_early(history[:epoch], params)), 0)
    return end, best_row(history[: end or None], monitor)["epoch"]


def test_training_stops_after_patience_epochs_without_improvement() -> None:
    assert run([0.5, 0.7, 0.6, 0.65, 0.7, 0.9], patience=3) == (5, 2)


def test_a_tie_keeps_the_earlier_epoch() -> None:
    assert run([0.7, 0.8, 0.8], patience=9) == (0, 2)


def test_a_lower_loss_is_better() -> None:
    assert run([0.7, 0.5, 0.6], "validation_loss", patience=9) == (0, 2)


@pytest.mark.parametrize("patience", [0, 1])
def test_patience_0_and_1_stop_at_the_first_epoch_without_improvement(patience: int) -> None:
    assert run([0.5, 0.6, 0.6], patience=patience) == (3, 2)


def test_a_non_finite_value_is_no_improvement() -> None:
    assert run([math.nan, 0.9, math.nan], "validation_loss", patience=9) == (0, 2)


def test_patience_starts_after_the_frozen_epochs() -> None:
    assert run([0.5, 0.4, 0.4, 0.4, 0.4], patience=2, frozen_epochs=2) == (4, 1)
