"""Test Smith's learning-rate range test."""

from collections.abc import Callable
from typing import Any

import pytest

from leaf.errors import LeafError
from leaf.train.lr_finder import propose, range_test, smooth


def test_base_and_max_are_at_10_and_90_percent_of_the_decrease() -> None:
    rates = [10.0**-exponent for exponent in (6, 5, 4, 3, 2, 1)]
    assert propose(rates, [1.0, 0.99, 0.85, 0.08, 0.0, 3.0]) == (1e-4, 1e-3)


def test_losses_are_smoothed_with_a_centered_window() -> None:
    assert smooth([0.0, 3.0, 6.0, 9.0], 3) == [1.5, 3.0, 6.0, 7.5]


def test_loss_that_never_decreases_is_rejected() -> None:
    with pytest.raises(LeafError, match=r"lr-range.*--lowest.*--updates"):
        propose([1e-3, 1e-2], [0.5, 0.6])


def test_limits_in_the_wrong_order_are_rejected(
    network: Callable[..., Any], dataset: Callable[..., Any], recipe: Callable[..., Any]
) -> None:
    with pytest.raises(LeafError, match="--lowest"):
        range_test(network(), dataset(8, 0), recipe(), lowest=1.0, highest=0.1, updates=20)


@pytest.mark.slow
def test_the_rate_grows_exponentially_until_the_loss_diverges(
    network: Callable[..., Any], dataset: Callable[..., Any], recipe: Callable[..., Any]
) -> None:
    model = network()
    test = range_test(model, dataset(72, 0), recipe(batch_size=16), 1e-4, 1e3, updates=60)
    assert test.rates[1] / test.rates[0] == pytest.approx(10 ** (7 / 59))
    assert len(test.rates) == len(test.losses) == len(test.smoothed) < 60
    assert 1e-4 <= test.base <= test.max < test.rates[-1]
    assert float(model.optimizer.learning_rate) == pytest.approx(
        test.rates[-1] * test.rates[1] / test.rates[0], rel=0.01
    )
