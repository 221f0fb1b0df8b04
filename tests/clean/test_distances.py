import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.clean import distances, near_duplicates


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_distances_equal_mean_squared_error_computed_with_numpy(dtype: type) -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 17, 17, 3)).astype(dtype)
    pairs = np.array([[0, 1], [2, 5], [3, 3]])
    plain = images.astype(np.float64)
    expected = ((plain[pairs[:, 0]] - plain[pairs[:, 1]]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(distances.of_pairs(images, pairs), expected, rtol=1e-12)
    expected = ((plain - plain[4]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(distances.to_reference(images, np.arange(6), images[4]), expected, rtol=1e-12)


def test_distance_between_large_black_and_white_images_does_not_overflow() -> None:
    images = np.zeros((2, 512, 512, 3), np.uint8)
    images[1] = 255
    assert distances.of_pairs(images, np.array([[0, 1]])).tolist() == [65025]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("within", "further"), [(0, 1), (400, 5), (3000, 0), (70000, 3)])
def test_no_distance_below_a_returned_distance_is_missing(dtype: type, within: float, further: int) -> None:
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (1, 24, 24, 3)) + random.normal(0, np.linspace(0, 120, 400)[:, None, None, None])
    images = np.clip(images + random.normal(0, 10, (400, 24, 24, 3)), 0, 255).astype(dtype)
    rows = np.arange(0, 400, 2)
    references = [images[0], images[7], 255 - images[3]]
    small = distances.block_means(images, rows)
    found = list(distances.to_references(images, rows, small, references, within, further))
    assert len(found) == len(references)
    for distance, reference in zip(found, references, strict=True):
        expected = distances.to_reference(images, rows, reference)
        known = np.isfinite(distance)
        np.testing.assert_array_equal(distance[known], expected[known])
        assert known.sum() >= min(len(rows), (expected <= within).sum() + further)
        assert expected[~known].min(initial=np.inf) >= distance[known].max(initial=0)
    assert np.isinf(found[0]).any() or within == 70000


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(3, 37), noise=st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_distances_of_block_means_and_components_are_lower_bounds(seed: int, size: int, noise: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, size, size, 3))
    images[1] = np.clip(images[0] + rng.integers(-noise, noise + 1, images[0].shape), 0, 255)
    mse = ((images[0] - images[1]) ** 2).mean()
    small = distances.block_means(images.astype(np.uint8), np.arange(2))
    points = near_duplicates.project(small, near_duplicates.basis(small))
    whole, leading = ((small[0] - small[1]) ** 2).sum(), ((points[0] - points[1]) ** 2).sum()
    assert leading <= whole + 1e-3 <= mse + 2e-3


def test_only_a_difference_in_one_block_is_local() -> None:
    rng = np.random.default_rng(6)
    image = np.full((96, 96, 3), 120.0) + rng.normal(0, 3, (96, 96, 3))
    noisy, patched = image + rng.normal(0, 6, image.shape), image.copy()
    patched[40:58, 40:58] += 32
    images = np.stack([image, noisy, patched, 1.05 * image + 5]).astype(np.float32)
    fine = distances.fine_means(images, np.arange(4))
    mse = distances.of_pairs(images, np.array([[0, 1], [0, 2], [0, 3]]))
    assert mse[:2] == pytest.approx([36, 36], abs=1)
    assert distances.differ_locally(fine[[0, 0, 0]], fine[1:], mse, 1).tolist() == [False, True, False]
