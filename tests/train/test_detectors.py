"""Anomaly detectors train on healthy images only, resume bit-identically, and detect planted spots."""

import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.models.backbones import check
from leaf.models.build import build_model
from leaf.models.prediction import predict_probabilities
from leaf.models.saving import load_model, save_model
from leaf.params import Params
from leaf.train.checkpoint import locked_checkpoint
from leaf.train.dataset import Dataset
from leaf.train.detectors import DetectorTraining, fit_constants
from leaf.train.reproducibility import fix_seeds
from leaf.train.trainer import run_training

FAST = {"policy": "constant", "base": 3e-3, "max": 3e-3}


@pytest.fixture(scope="module")
def leaves():
    """Return smooth green images, uint8 (96, 32, 32, 3), and labels (96,). Images with label 1 have bright spots."""
    random = np.random.default_rng(0)
    labels = np.arange(96) % 2
    slope = np.linspace(-30, 30, 32)
    tone = random.uniform(80, 140, (96, 1, 1, 1)) + random.uniform(-1, 1, (96, 1, 1, 1)) * slope[None, :, None, None]
    images = tone * np.array([0.4, 1.0, 0.3]) + random.normal(0, 4, (96, 32, 32, 3))
    images[labels == 1] = np.stack([_spotted(image, random) for image in images[labels == 1]])
    return images.clip(0, 255).astype(np.uint8), labels


def _spotted(image, random):
    image = image.copy()
    for row, column in random.integers(0, 26, (4, 2)):
        image[row : row + 6, column : column + 6] = (160, 120, 40)
    return image


def _fit(name, leaves, epochs, checkpoint_file=None, on_epoch_end=None, **changes):
    images, labels = leaves
    fix_seeds(3)
    model = build_model(name, 32, dropout_at="input", seed=3)
    rows = np.arange(64)
    dataset = Dataset(images, rows, labels[:64])
    validation = Dataset(images, np.arange(64, 96), labels[64:])
    settings = {"batch_size": 16, "epochs": epochs, "patience": 99, "monitor": "validation_loss", "weight_averaging": 0}
    recipe = Params(seed=3, learning_rate=FAST, **(settings | changes))
    training = DetectorTraining(model, dataset, validation, recipe)
    return model, run_training(training, checkpoint_file, on_epoch_end, quiet=True)


def test_frozen_epochs_do_not_delay_early_stopping(leaves, monkeypatch):
    monkeypatch.setattr("leaf.train.detectors.loss_and_accuracy", lambda *_: {"loss": 1.0, "accuracy": 0.5})
    _, result = _fit("autoencoder", leaves, 9, patience=2, frozen_epochs=6)
    assert (len(result.history), result.stopped) == (3, "early")


def test_the_threshold_is_between_two_separate_groups():
    scores = np.array([1.0, 1.1, 1.2, 2.0, 2.1, 2.2])
    scale, threshold = fit_constants(scores, np.array([0, 0, 0, 1, 1, 1]))
    assert scale > 0
    assert 1.2 < threshold < 2.0


def test_an_inverted_score_gets_a_scale_near_zero():
    scale, _ = fit_constants(np.array([1.0, 1.1, 2.0, 2.1]), np.array([1, 1, 0, 0]))
    assert 0 < scale < 0.01


def test_training_without_healthy_images_is_rejected(leaves):
    images, labels = leaves
    spotted = Dataset(images, np.flatnonzero(labels == 1), np.ones(48, int))
    recipe = Params(weight_averaging=0)
    with pytest.raises(LeafError, match="no images of the first class"):
        DetectorTraining(build_model("autoencoder", 32, dropout_at="input"), spotted, spotted, recipe)


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("optimizer", "adamw", "adam"),
        ("weight_decay", 0.1, "0"),
        ("label_smoothing", 0.1, "0"),
        ("weight_averaging", 0.99, "0"),
        ("micro_batch", 8, "0"),
        ("frozen_epochs", 2, "0"),
    ],
)
def test_a_setting_that_detectors_ignore_is_rejected(key, value, valid):
    params = Params(**{"backbone": "gan", "dropout_at": "input", "weight_averaging": 0, key: value})
    with pytest.raises(LeafError, match=f"^{key}: {value}; valid: {valid} for gan, a detector$"):
        check(params, 2)


@pytest.mark.slow
def test_out_of_memory_names_batch_size(leaves, monkeypatch):
    def exhausted(*arguments):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1073741824 bytes.\n")  # JAX's error message

    monkeypatch.setattr("leaf.train.detectors._AutoencoderStep.train_on_batch", exhausted)
    with pytest.raises(LeafError, match=r"batch_size: .* 16 images.* 8\b"):
        _fit("autoencoder", leaves, 1)


@pytest.mark.slow
def test_an_autoencoder_detects_spots_without_training_on_them(leaves):
    images, labels = leaves
    model, result = _fit("autoencoder", leaves, 12)
    given = predict_probabilities(model, images[64:])[:, 1]
    assert np.mean(given[labels[64:] == 1][:, None] > given[labels[64:] == 0]) > 0.9
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2
    changed = images.copy()
    changed[:64][labels[:64] == 1] = 0
    again, _ = _fit("autoencoder", (changed, labels), 12)
    np.testing.assert_array_equal(predict_probabilities(again, images[64:])[:, 1], given)


@pytest.fixture(scope="module", params=["autoencoder", pytest.param("gan", marks=pytest.mark.full)])
def whole(request, leaves):
    """Return a detector's name, its network after three uninterrupted epochs, and the result."""
    return request.param, *_fit(request.param, leaves, 3)


@pytest.mark.slow
def test_a_resumed_detector_is_bit_identical(whole, leaves, tmp_path):
    name, model, result = whole

    class KilledError(Exception):
        pass

    def kill(row):
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError), locked_checkpoint("run", tmp_path) as checkpoint_file:
        _fit(name, leaves, 3, checkpoint_file, kill)
    with locked_checkpoint("run", tmp_path) as checkpoint_file:
        resumed, again = _fit(name, leaves, 3, checkpoint_file)
    save_model(model, tmp_path / "whole.keras")
    save_model(resumed, tmp_path / "resumed.keras")
    assert again.history == result.history
    assert (tmp_path / "whole.keras").read_bytes() == (tmp_path / "resumed.keras").read_bytes()


@pytest.mark.slow
def test_a_detector_reconstructs_images_after_saving(whole, leaves, tmp_path):
    _, model, result = whole
    save_model(model, tmp_path / "a.keras")
    given = predict_probabilities(load_model(tmp_path / "a.keras"), leaves[0])
    np.testing.assert_allclose(given, predict_probabilities(model, leaves[0]), atol=1e-5)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert all(weight.trainable for weight in model.get_layer("encoder").weights)
