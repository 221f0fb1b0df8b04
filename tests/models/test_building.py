"""Test `build_model`: deterministic weights, preprocessing, dropout and precision."""

import keras
import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.models.backbones import BACKBONES, VARIANTS
from leaf.models.build import build_model, clone
from leaf.models.summary import summarize_model


def _equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_equal_seeds_give_equal_weights(small):
    assert _equal(small, build_model("cnn_small", 32, seed=7))


def test_different_seeds_give_different_weights(small):
    assert not _equal(small, build_model("cnn_small", 32, seed=8))


def test_global_random_state_is_neither_used_nor_changed(small):
    keras.utils.set_random_seed(1)
    expected = np.random.get_state()[1].copy()  # noqa: NPY002
    assert _equal(small, build_model("cnn_small", 32, seed=7))
    assert np.array_equal(np.random.get_state()[1], expected)  # noqa: NPY002


def test_equal_layers_have_different_initial_weights():
    image = keras.Input((4,), name="image")
    model = keras.Model(image, keras.layers.Dense(4, name="second")(keras.layers.Dense(4, name="first")(image)))
    model = clone(model, "twice", 1, "float32")
    first, second = (model.get_layer(name).get_weights()[0] for name in ("first", "second"))
    assert not np.array_equal(first, second)


def test_input_dropout_acts_on_the_image_only_in_training(images):
    model = build_model("cnn_small", 32, dropout=0.5, dropout_at="input")
    dropped = keras.Model(model.input, model.get_layer("dropout").output)
    values = images.astype(np.float32) + 1
    share = np.mean(np.asarray(dropped(values, training=True)) == 0)
    assert 0.45 < share < 0.55
    assert np.array_equal(np.asarray(dropped(values, training=False)), values)


def test_head_dropout_acts_on_the_pooled_features(images):
    model = build_model("cnn_small", 32, dropout=0.5)
    assert [operation.name for operation in model.operations[-3:]] == ["batch_normalization", "dropout", "dense"]
    dropped = np.asarray(model.get_layer("dropout")(np.ones((64, 128), np.float32), training=True))
    assert np.mean(dropped == 0) == pytest.approx(0.5, abs=0.05)
    assert [row.name for row in summarize_model(model).rows] == ["cnn_small", "batch_normalization", "dropout", "dense"]


def test_dropout_position_does_not_change_predictions(small, images):
    values = images.astype(np.float32)
    moved = build_model("cnn_small", 32, seed=7, dropout_at="input")
    np.testing.assert_array_equal(np.asarray(moved(values)), np.asarray(small(values)))


def test_head_is_pooling_normalization_and_dense(small):
    names = [operation.name for operation in small.operations[-4:]]
    assert names == ["pool", "batch_normalization", "dropout", "dense"]


def test_zero_head_gives_zero_logits_and_changes_no_other_weight(small, images):
    model = build_model("cnn_small", 32, seed=7, head_initializer="zeros")
    assert not np.any(np.asarray(model(images.astype(np.float32))))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights()[:-2], small.get_weights()[:-2], strict=True))


def test_logits_are_float32_under_mixed_precision(images):
    model = build_model("cnn_small", 32, precision="mixed_bfloat16")
    assert model.get_layer("stage_0_conv_0").compute_dtype == "bfloat16"
    assert keras.backend.standardize_dtype(model(images[:1].astype(np.float32)).dtype) == "float32"


@pytest.mark.parametrize("backbone", [pytest.param("convnext_atto", marks=pytest.mark.slow), "autoencoder"])
def test_rematerialization_does_not_change_the_update(images, backbone):
    changed = []
    for rematerialize in (False, True):
        model = build_model(backbone, 32, seed=7, dropout=0, dropout_at="input", rematerialize=rematerialize)
        assert rematerialize is any(bool(layer._remat_mode and layer._remat_mode.mode) for layer in model.layers)
        model.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(from_logits=True))
        model.train_on_batch(images.astype(np.float32), np.eye(2)[np.arange(len(images)) % 2])
        changed.append(model.get_weights())
    for plain, rematerialized in zip(*changed, strict=True):
        np.testing.assert_allclose(rematerialized, plain, atol=1e-5)


def test_closest_name_is_suggested_for_an_unknown_backbone():
    with pytest.raises(LeafError, match=r"did you mean convnext_atto\?"):
        build_model("convnext_ato", 32)


def test_image_size_below_the_minimum_is_rejected():
    with pytest.raises(LeafError, match="image_size: 64; valid: at least 71 for xception"):
        build_model("xception", 64)


def test_list_of_backbones_is_complete():
    published = ["efficientnet_v2_b0", "mobilenet", "mobilenet_v2", "resnet50", "xception"]
    convnext = [f"convnext_{size}" for size in ("atto", "tiny", "small", "base", "large", "xlarge")]
    ours = ["cnn_small", "cnn_medium", "cnn_large", "autoencoder", "autoencoder_redness", "gan", "gan_redness"]
    assert set(BACKBONES) == {*published, *convnext, *ours, *VARIANTS}
