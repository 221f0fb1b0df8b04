"""Fixtures: labels with probabilities from a simulated, moderately accurate classifier."""

import numpy as np
import pytest


def draw(images=300, seed=0, sharp=1.5):
    """Return binary labels, about 40% of them 1, and probabilities, some of them equal, from a simulated classifier."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.4).astype(int)
    logits = sharp * (2 * labels - 1) + random.normal(0, 1.5, images)
    return labels, (1 / (1 + np.exp(-logits))).round(3)


def draw_many(images=300, classes=4, seed=0):
    """Return labels with all classes equally frequent, and probabilities (N, C) from a simulated classifier."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(images) % classes)
    logits = 1.5 * np.eye(classes)[labels] + random.normal(0, 1, (images, classes))
    powers = np.exp(logits)
    return labels, powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def make_many():
    return draw_many


@pytest.fixture
def drawn():
    return draw()


@pytest.fixture
def make_drawn():
    return draw
