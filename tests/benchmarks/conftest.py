"""Fixture: synthetic leaves as input of the benchmarks."""

import pytest

from leaf.synthesize import draw_dataset, scaled, write_npz


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """Return an .npz file of 100 synthetic leaves."""
    file = tmp_path_factory.mktemp("synthetic") / "leaves.npz"
    images, labels = draw_dataset(scaled(100), 80, 1)
    write_npz(file, images, ["unhealthy" if label else "healthy" for label in labels])
    return file
