"""Test that a clone of a keras.applications ConvNeXt has the same outputs and can load the published weights."""

import keras
import numpy as np
import pytest
from keras.src.applications.convnext import ConvNeXt  # builds all five published sizes

from leaf import store
from leaf.models.build import build_model, clone
from leaf.models.freezing import backbone_operations


@pytest.fixture(scope="module")
def pair():
    """Return a small keras.applications ConvNeXt and its clone with the same weights."""
    stock = ConvNeXt(
        (1, 1, 2, 1),
        (8, 16, 24, 32),
        name="tiny",
        weights=None,
        include_top=False,
        input_shape=(32, 32, 3),
        pooling="avg",
    )
    random = np.random.default_rng(0)
    stock.set_weights([random.normal(0, 0.3, weight.shape).astype(np.float32) for weight in stock.weights])
    cloned = clone(stock, "tiny", 1, "float32")
    arrays = [
        value.transpose(0, 1, 3, 2) if value.shape != own.shape else value
        for value, own in zip(stock.get_weights(), cloned.weights, strict=True)
    ]
    cloned.set_weights(arrays)
    return stock, cloned


def test_clone_matches_the_outputs_within_1e_5(pair, images):
    first, second = (np.asarray(model(images.astype(np.float32))) for model in pair)
    assert np.abs(first).max() > 0.1
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_clone_has_the_same_number_of_parameters_and_operations(pair):
    stock, cloned = pair
    assert stock.count_params() == cloned.count_params()
    assert len(stock.operations) == len(cloned.operations)
    assert [type(a).__name__ for a in cloned.operations if "depthwise" in a.name] == ["DepthwiseConv2D"] * 5


def test_layer_names_do_not_depend_on_earlier_models(pair):
    stock, cloned = pair
    keras.layers.Add()
    again = clone(stock, "tiny", 1, "float32")
    assert [operation.name for operation in again.operations] == [operation.name for operation in cloned.operations]


@pytest.mark.slow
def test_convnext_tiny_gives_the_same_features_with_published_weights(tmp_path, images):
    stock = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    file = tmp_path / "convnext_tiny_notop.h5"  # same format as the published files
    stock.save_weights(file) if file.name.endswith(".weights.h5") else stock.save(file)
    model = build_model("convnext_tiny", 32, weights=str(file), weights_sha256=store.sha256(file))
    ours = keras.Model(model.input, model.get_layer("batch_normalization").input)
    batch = images.astype(np.float32)
    np.testing.assert_allclose(np.asarray(ours(batch)), np.asarray(stock(batch)), atol=1e-5)
    assert len(backbone_operations(model)) == len(stock.operations)
