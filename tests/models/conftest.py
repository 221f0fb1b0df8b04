"""Fixtures: small models and images shared by the tests in this folder."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from leaf.models.build import build_model  # noqa: E402


@pytest.fixture(scope="session")
def small():
    """Return a model with a few thousand parameters. Tests must not modify it."""
    return build_model("cnn_small", 32, seed=7)


@pytest.fixture(scope="session")
def images():
    """Return ten images of random noise, uint8 (10, 32, 32, 3)."""
    return np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)
