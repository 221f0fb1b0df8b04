"""Test the anomaly detectors: score, probabilities, saving, heatmaps and summary."""

import keras
import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.models.autoencoder import ReconstructionScore, calibrate_detector, is_detector_model
from leaf.models.backbones import is_detector
from leaf.models.build import build_model
from leaf.models.gan import SpectralConv2D
from leaf.models.prediction import compute_heatmaps, extract_features, predict_probabilities
from leaf.models.saving import load_model, save_model
from leaf.models.summary import summarize_model


@pytest.fixture(scope="module")
def autoencoder():
    return build_model("autoencoder", 32, dropout_at="input", seed=5)


def test_detectors_are_recognized_by_name_and_by_model(autoencoder, small):
    assert [is_detector(name) for name in ("autoencoder", "gan", "cnn_small")] == [True, True, False]
    assert is_detector_model(autoencoder)
    assert not is_detector_model(small)


def test_probability_is_one_half_at_the_threshold_and_increases_with_the_score(autoencoder, images):
    inner = keras.Model(autoencoder.input, autoencoder.get_layer("score").output)
    scores = np.asarray(inner.predict_on_batch(images.astype(np.float32)))[:, 0]
    calibrate_detector(autoencoder, 3.0, float(scores[4]))
    given = predict_probabilities(autoencoder, images)[:, 1]
    np.testing.assert_allclose(given, 1 / (1 + np.exp(-3 * (scores - scores[4]))), atol=1e-4)
    assert given[4] == pytest.approx(0.5)


def test_constants_are_saved_with_the_model(autoencoder, images, tmp_path):
    calibrate_detector(autoencoder, 2.5, -1.25)
    save_model(autoencoder, tmp_path / "a.keras")
    loaded = load_model(tmp_path / "a.keras")
    assert float(loaded.get_layer("logits").scale) == 2.5
    assert float(loaded.get_layer("logits").threshold) == -1.25
    np.testing.assert_allclose(
        predict_probabilities(loaded, images), predict_probabilities(autoencoder, images), atol=1e-6
    )


def test_equal_seeds_give_identical_files(autoencoder, tmp_path):
    save_model(build_model("autoencoder", 32, dropout_at="input", seed=5), tmp_path / "a.keras")
    save_model(build_model("autoencoder", 32, dropout_at="input", seed=5), tmp_path / "b.keras")
    save_model(build_model("autoencoder", 32, dropout_at="input", seed=6), tmp_path / "c.keras")
    first, second, third = ((tmp_path / f"{name}.keras").read_bytes() for name in "abc")
    assert first == second != third


def _score(residual, **options):
    return float(ReconstructionScore(**options)(residual)[0, 0])


def test_score_is_the_mean_squared_error(autoencoder, images):
    values = images[:1].astype(np.float32)
    residual, score = keras.Model(
        autoencoder.input, [autoencoder.get_layer(name).output for name in ("residual", "score")]
    )(values)
    assert float(score[0, 0]) == pytest.approx(np.log(np.mean(np.square(residual))), abs=1e-5)


def test_redness_detects_red_spots_and_averages_out_texture():
    random = np.random.default_rng(0)
    texture, spot = np.zeros((2, 1, 32, 32, 3), np.float32)
    texture[..., 0] = random.choice([-0.5, 0.5], (1, 32, 32))
    spot[:, 8:20, 8:20, 0] = 0.5
    assert _score(spot, block=4, redness=True) > _score(texture, block=4, redness=True) + 1


def test_redness_ignores_changes_in_brightness():
    random = np.random.default_rng(0)
    light = np.repeat(random.normal(0, 0.5, (1, 32, 32, 1)), 3, axis=-1).astype(np.float32)
    green = np.zeros((1, 32, 32, 3), np.float32)
    green[..., 1] = 0.5
    nothing = _score(np.zeros((1, 32, 32, 3), np.float32), redness=True)
    assert _score(light, redness=True) == pytest.approx(nothing, abs=1e-3)
    assert _score(green, redness=True) == pytest.approx(nothing, abs=1e-3)
    assert _score(light, redness=False) > nothing + 1


def test_score_of_a_file_without_the_redness_key_is_unchanged():
    config = ReconstructionScore(redness=True).get_config()
    del config["redness"]
    assert ReconstructionScore.from_config(config).redness


def test_heatmap_of_a_detector_is_its_reconstruction_error(autoencoder):
    images = np.full((1, 32, 32, 3), 128, np.uint8)
    images[0, 4:12, 20:28] = (255, 0, 255)
    row, column = np.unravel_index(compute_heatmaps(autoencoder, images)[0].argmax(), (32, 32))
    assert 3 <= row <= 12
    assert 19 <= column <= 28


def test_features_of_a_detector_are_its_code(autoencoder, images):
    assert extract_features(autoencoder, images).shape == (10, 16)


def test_summary_lists_the_parts(autoencoder):
    table = summarize_model(autoencoder)
    assert [row.name for row in table.rows] == ["dropout", "encoder", "decoder", "logits"]
    assert sum(row.parameters for row in table.rows) == table.total


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_size": 40}, "image_size: 40; valid: a multiple of 16 for autoencoder"),
        ({"classes": 3}, "two classes.*3"),
        ({"weights": "imagenet"}, "weights: imagenet; valid: random for autoencoder"),
        ({"dropout_at": "head"}, "dropout_at: head; valid: input for autoencoder"),
        ({"freeze_depth": 3}, "freeze_depth: 3; valid: 0 for autoencoder"),
        ({"freeze_normalization": True}, "freeze_normalization: true; valid: false for autoencoder"),
        ({"head_initializer": "zeros"}, "head_initializer: zeros; valid: glorot_uniform for autoencoder"),
    ],
)
def test_settings_that_detectors_do_not_support_are_rejected(change, match):
    with pytest.raises(LeafError, match=match):
        build_model("autoencoder", **({"image_size": 32, "dropout_at": "input"} | change))


def test_spectral_norm_converges_to_one():
    layer = SpectralConv2D(6, 3, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0, seed=1))
    batch = np.zeros((1, 4, 4, 5), np.float32)
    for _ in range(60):
        layer(batch, training=True)
    kernel = np.asarray(layer._normalized(training=False)).reshape(-1, 6)
    assert np.linalg.norm(kernel, 2) == pytest.approx(1, abs=1e-3)


def test_inference_does_not_change_the_spectral_convolution():
    layer = SpectralConv2D(6, 3)
    batch = np.ones((1, 4, 4, 5), np.float32)
    before = np.asarray(layer(batch)), np.asarray(layer.direction)
    assert np.array_equal(before[0], np.asarray(layer(batch)))
    assert np.array_equal(before[1], np.asarray(layer.direction))
    layer(batch, training=True)
    assert not np.array_equal(before[1], np.asarray(layer.direction))


@pytest.mark.slow
def test_loaded_gan_gives_the_same_probabilities(images, tmp_path):
    model = build_model("gan", 32, dropout_at="input")
    save_model(model, tmp_path / "a.keras")
    np.testing.assert_allclose(
        predict_probabilities(load_model(tmp_path / "a.keras"), images), predict_probabilities(model, images), atol=1e-6
    )
    assert extract_features(model, images).shape == (10, 128)
