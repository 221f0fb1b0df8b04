"""Labels with probabilities of a middling classifier."""

import numpy as np
import pytest


def draw(images=300, seed=0, sharp=1.5):
    """Labels 0/1, about two fifths of them 1, and calibrated-looking probabilities with ties."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.4).astype(int)
    logits = sharp * (2 * labels - 1) + random.normal(0, 1.5, images)
    return labels, (1 / (1 + np.exp(-logits))).round(3)


@pytest.fixture
def drawn():
    return draw()


@pytest.fixture
def make_drawn():
    return draw
