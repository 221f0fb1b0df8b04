"""Test the moving average of the weights."""

from collections.abc import Callable
from typing import Any

import numpy as np

from leaf.train.optimizer import ExponentialMovingAverage


def test_the_average_follows_the_weights_with_momentum(network: Callable[..., Any]) -> None:
    model = network()
    ema = ExponentialMovingAverage(model, 0.5)
    kernel = model.layers[-1].kernel
    expected = np.array(kernel)
    for update in range(30):
        kernel.assign(np.full(kernel.shape, float(update)))
        ema.update()
        share = min(0.5, (1 + update) / (10 + update))
        expected = share * expected + (1 - share) * update
    position = next(i for i, weight in enumerate(ema.weights) if weight is kernel)
    np.testing.assert_allclose(ema.arrays()[position], expected, rtol=1e-5)


def test_applied_restores_the_weights(network: Callable[..., Any]) -> None:
    model = network()
    ema = ExponentialMovingAverage(model, 0.9)
    before = model.get_weights()
    ema.restore([array + 1 for array in ema.arrays()], updates=3)
    with ema.applied():
        assert (model.get_weights()[0] == before[0] + 1).all()
    assert all((a == b).all() for a, b in zip(model.get_weights(), before, strict=True))
