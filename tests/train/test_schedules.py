"""Test the learning-rate schedules."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from leaf.train.learning_rate import Schedule, make_schedule


def smith(policy: str, n: int, base: float, top: float, step: float, gamma: float) -> float:
    """Return the learning rate of Smith (2015), as in the author's code."""
    cycle = math.floor(1 + n / (2 * step))
    x = abs(n / step - 2 * cycle + 1)
    height = (top - base) * max(0.0, 1 - x)
    scale = {"triangular": 1.0, "triangular2": 1 / 2 ** (cycle - 1), "exp_range": gamma**n}[policy]
    return base + height * scale


@pytest.mark.parametrize("policy", ["triangular", "triangular2", "exp_range"])
def test_cyclical_policies_follow_smiths_formula_at_every_update(policy: str) -> None:
    rate = Schedule(policy, 1e-5, 1e-4, step_updates=20, gamma=0.99)
    updates = np.arange(200)
    expected = [smith(policy, n, 1e-5, 1e-4, 20, 0.99) for n in updates]
    np.testing.assert_allclose([float(rate(n)) for n in updates], expected, rtol=2e-5)


def test_triangular_starts_at_base_and_peaks_after_one_step() -> None:
    rate = Schedule("triangular", 1e-5, 1e-4, step_updates=50)
    assert [float(rate(n)) for n in (0, 50, 100)] == pytest.approx([1e-5, 1e-4, 1e-5])


def test_constant_is_always_the_highest_rate() -> None:
    rate = Schedule("constant", 1e-5, 1e-4)
    assert [float(rate(n)) for n in (0, 1, 999)] == pytest.approx([1e-4] * 3)


def test_exponential_falls_by_gamma_per_update_and_never_below_base() -> None:
    rate = Schedule("exponential", 1e-5, 1e-3, gamma=0.9)
    assert [float(rate(n)) for n in (0, 1, 10, 1000)] == pytest.approx([1e-3, 9e-4, 1e-3 * 0.9**10, 1e-5])


def test_cosine_warms_up_linearly_and_ends_at_base() -> None:
    rate = Schedule("cosine", 0.1, 1.1, warmup_updates=10, total_updates=110)
    assert [float(rate(n)) for n in (0, 5, 10, 60, 110, 200)] == pytest.approx([0.1, 0.6, 1.1, 0.6, 0.1, 0.1])


def test_step_unit_counts_epochs_or_images(recipe: Callable[..., Any]) -> None:
    epochs = recipe(learning_rate={"step_epochs": 4})
    images = recipe(learning_rate={"step_epochs": 4, "step_unit": "images"})
    assert make_schedule(epochs, 2, 10, 320).step_updates == 40
    assert make_schedule(images, 2, 10, 320).step_updates == 1280


def test_the_frozen_phase_has_its_own_constant_rate(recipe: Callable[..., Any]) -> None:
    rate = make_schedule(recipe(frozen_epochs=2, frozen_learning_rate=0.02), 1, 10, 320)
    assert float(rate(0)) == float(rate(15)) == pytest.approx(0.02)


def test_micro_batches_of_an_update_have_the_same_rate() -> None:
    single = Schedule("triangular", 0.0, 1.0, step_updates=5)
    parts = Schedule("triangular", 0.0, 1.0, step_updates=5, accumulation=4)
    rates = [float(parts(update * 4 + 3)) for update in range(12)]
    assert rates == [float(single(update)) for update in range(12)]


def test_a_saved_optimizer_restores_its_schedule() -> None:
    rate = Schedule("exp_range", 1e-5, 1e-4, step_updates=7, gamma=0.99, accumulation=2)
    optimizer = keras.optimizers.Adam(rate)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    restored = again.get_config()["learning_rate"]["config"]
    assert restored == rate.get_config()
