import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.clean import near_duplicates as distances


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(3, 37), noise=st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_block_means_and_their_components_bound_the_mean_squared_error_from_below(
    seed: int, size: int, noise: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, size, size, 3))
    images[1] = np.clip(images[0] + rng.integers(-noise, noise + 1, images[0].shape), 0, 255)
    mse = ((images[0] - images[1]) ** 2).mean()
    small = distances.block_means(images.astype(np.uint8), np.arange(2))
    points = distances.project(small, distances.basis(small))
    whole, leading = ((small[0] - small[1]) ** 2).sum(), ((points[0] - points[1]) ** 2).sum()
    assert leading <= whole + 1e-3 <= mse + 2e-3


@pytest.mark.parametrize("size", [24, 25, 31])
@pytest.mark.parametrize("symmetry", distances.SYMMETRIES)
def test_the_block_means_of_a_turned_image_are_turned_block_means(size: int, symmetry: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    turned = np.ascontiguousarray(distances.transformed(image, symmetry))
    one, other = (distances.block_means(each, np.arange(1)) for each in (image, turned))
    np.testing.assert_allclose(distances.transformed(one, symmetry), other, atol=1e-3)


def test_the_eight_symmetries_are_all_different() -> None:
    image = np.arange(12).reshape(2, 2, 3)
    assert len({distances.transformed(image, name).tobytes() for name in distances.SYMMETRIES}) == 8
