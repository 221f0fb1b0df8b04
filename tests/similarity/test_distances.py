import numpy as np
import pytest

from leaf.similarity import distances


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_distances_equal_the_mean_squared_error_in_plain_numpy(dtype: type) -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 17, 17, 3)).astype(dtype)
    pairs = np.array([[0, 1], [2, 5], [3, 3]])
    plain = images.astype(np.float64)
    expected = ((plain[pairs[:, 0]] - plain[pairs[:, 1]]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(distances.of_pairs(images, pairs), expected, rtol=1e-12)
    expected = ((plain - plain[4]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(distances.to_reference(images, np.arange(6), images[4]), expected, rtol=1e-12)


def test_the_distance_between_black_and_white_of_a_large_image_does_not_overflow() -> None:
    images = np.zeros((2, 512, 512, 3), np.uint8)
    images[1] = 255
    assert distances.of_pairs(images, np.array([[0, 1]])).tolist() == [65025]
