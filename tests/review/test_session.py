"""Test the features that rank images on the review pages."""

from pathlib import Path

import numpy as np
import pytest

from leaf.clean.same_photo import descriptors
from leaf.evaluate.baselines import joint_histograms
from leaf.models.onnx_inference import OnnxNetwork
from leaf.params import Params
from leaf.review.session import image_features

ROWS = np.array([1, 3])


def draw(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)


@pytest.mark.slow
def test_trained_model_features_are_used_and_cached(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    network = OnnxNetwork(trained / "models/model.onnx")
    images = draw(network.image_size)
    features = image_features(images, ROWS, Params(), trained)
    expected = network.predict(images[ROWS].astype(np.float32))[1]
    np.testing.assert_allclose(features, expected, atol=1e-5)
    monkeypatch.setattr(OnnxNetwork, "predict", lambda *_: pytest.fail("not cached"))
    assert (image_features(images, ROWS, Params(), trained) == features).all()


def test_features_without_a_model_are_colors_and_shape(tmp_path: Path) -> None:
    images = draw(32)
    expected = np.concatenate([descriptors(images, ROWS), joint_histograms(images, ROWS)], axis=1)
    assert (image_features(images, ROWS, Params(), tmp_path) == expected).all()
