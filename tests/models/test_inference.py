"""Test probabilities, features and views for different dtypes, batch sizes and numbers of images."""

import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.models.prediction import compute_heatmaps, extract_features, predict_probabilities, softmax
from leaf.models.tta import tta_view


@pytest.fixture(scope="module")
def given(small, images):
    return predict_probabilities(small, images)


def test_probabilities_are_the_softmax_of_the_logits(small, images, given):
    logits = np.asarray(small(images.astype(np.float32)), np.float64)
    np.testing.assert_allclose(given, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-6)
    assert given.dtype == np.float64
    assert given.std() > 0


def test_probabilities_do_not_depend_on_the_batch_size(small, images, given):
    np.testing.assert_allclose(predict_probabilities(small, images, batch_size=4), given, atol=1e-6)


def test_floats_and_memory_maps_give_equal_probabilities(small, images, given, tmp_path):
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_allclose(predict_probabilities(small, mapped), given, atol=1e-6)


def test_temperature_divides_the_logits(small, images, given):
    cooled = predict_probabilities(small, images, temperature=2.0)
    np.testing.assert_allclose(np.log(cooled / (1 - cooled)) * 2, np.log(given / (1 - given)), atol=1e-5)


def test_extreme_logits_do_not_overflow(small, images):
    with np.errstate(over="raise"):
        assert np.isfinite(predict_probabilities(small, images, temperature=1e-6)).all()


@pytest.mark.parametrize("logits", [[[np.nan, 1.0]], [[0.0, np.inf]], [[1.0, 2.0, np.nan]]])
def test_logits_that_are_not_finite_are_rejected(logits):
    with pytest.raises(LeafError, match="NaN or infinite logits"):
        softmax(np.array(logits, np.float32))


def test_empty_batch_gives_empty_probabilities(small, images):
    assert predict_probabilities(small, images[:0]).shape == (0, 2)
    assert extract_features(small, images[:0]).shape == (0, 128)
    assert compute_heatmaps(small, images[:0]).shape == (0, 32, 32)


def test_views_are_averaged(small, images):
    both = [predict_probabilities(small, tta_view(images.astype(np.float32), number)) for number in (0, 1)]
    np.testing.assert_allclose(predict_probabilities(small, images, views=2), np.mean(both, 0), atol=1e-6)


def test_sixteen_views_differ_and_keep_shape_and_range(images):
    seen = [tta_view(images.astype(np.float32), number) for number in range(16)]
    assert len({part.tobytes() for part in seen}) == 16
    assert all(part.shape == images.shape and part.min() >= 0 and part.max() <= 255 for part in seen)


def test_eight_views_give_equal_probabilities_for_the_mirrored_image(small, images):
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    np.testing.assert_allclose(
        predict_probabilities(small, images, views=8), predict_probabilities(small, mirrored, views=8), atol=1e-6
    )


def test_features_are_the_input_of_the_head(small, images):
    head = [small.get_layer(name) for name in ("batch_normalization", "dense")]
    logits = np.asarray(head[1](head[0](extract_features(small, images))))
    np.testing.assert_allclose(logits, np.asarray(small(images.astype(np.float32))), atol=1e-5)
