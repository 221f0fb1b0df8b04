"""Test that leaf's LayerNormalization and GELU have the same outputs and gradients as Keras's layers."""

import keras
import numpy as np
import pytest

from leaf import store
from leaf.models.build import build_model, clone
from leaf.models.layers import GELU, LayerNormalization
from leaf.models.saving import load_model, save_model

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compiled only on TensorFlow")

PAIRS = {
    "normalization": (LayerNormalization, keras.layers.LayerNormalization, {"epsilon": 1e-6}),
    "gelu": (GELU, lambda **options: keras.layers.Activation("gelu", **options), {}),
}
# Errors are relative to the largest value. TensorFlow's float64 GELU uses a float32 constant, making it less accurate
# than leaf's.
TOLERANCE = {"float32": 2e-5, "float64": 2e-8, "mixed_bfloat16": 0.03}


def learn(layer, x, upstream, in_a_graph=True):
    """Return the output in training mode and the gradients with respect to the input and the weights."""
    layer.build(x.shape)
    for number, weight in enumerate(layer.weights):
        weight.assign(np.random.default_rng(number).normal(1, 0.5, weight.shape))

    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        weights = [weight.value for weight in layer.trainable_weights]
        return [y, *tape.gradient(y, [x, *weights], upstream)]

    if in_a_graph:
        step = tf.function(step)
    return [tf.cast(each, tf.float64).numpy() for each in step(x, upstream)]


def inputs(dtype):
    """Return activations far from 0 and an upstream gradient, each (4, 3, 5, 24)."""
    rng = np.random.default_rng(5)
    narrow = keras.DTypePolicy(dtype).compute_dtype
    return [tf.cast(rng.normal(mean, 2, (4, 3, 5, 24)), narrow) for mean in (3, 0)]


@pytest.mark.parametrize("in_a_graph", [True, False], ids=["graph", "eager"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", PAIRS)
def test_outputs_and_gradients_match_keras(kind, dtype, in_a_graph, monkeypatch):
    ours, plain, options = PAIRS[kind]
    expected = learn(plain(dtype=dtype, **options), *inputs(dtype))
    # Make any fallback to Keras's implementation raise an error.
    monkeypatch.setattr(keras.layers.LayerNormalization, "call", None)
    monkeypatch.setattr(keras.ops, "gelu", None)
    given = learn(ours(dtype=dtype, **options), *inputs(dtype), in_a_graph)
    assert len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE[dtype] * np.abs(other).max())


@pytest.mark.parametrize("kind", PAIRS)
def test_gradients_are_bit_identical(kind):
    ours, _, options = PAIRS[kind]
    large = [tf.random.stateless_normal((32, 24, 24, 40), (seed, 0)) for seed in (1, 2)]
    first, second = (learn(ours(**options), *large) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", PAIRS)
def test_predictions_match_keras(kind):
    ours, plain, options = PAIRS[kind]
    x, _ = inputs("float32")
    assert np.array_equal(ours(**options)(x), plain(**options)(x))


def with_keras_layers(model):
    """Return a copy of the model with Keras's own layers, as in files from earlier versions."""
    plain = {
        GELU: lambda layer: keras.layers.Activation("gelu", name=layer.name),
        LayerNormalization: lambda layer: keras.layers.LayerNormalization.from_config(layer.get_config()),
    }

    def made(layer):
        return plain.get(type(layer), lambda layer: layer.__class__.from_config(layer.get_config()))(layer)

    copy = keras.models.clone_model(model, clone_function=made)
    copy.set_weights(model.get_weights())
    return keras.Model(copy.input, copy.output, name=model.name)


def test_file_with_keras_layers_can_be_loaded_and_used_as_weights(images, tmp_path):
    path, batch = tmp_path / "before.keras", images.astype(np.float32)
    built = build_model("convnext_atto", 32, seed=7)
    save_model(with_keras_layers(built), path)
    loaded = load_model(path)
    kinds = {type(layer) for layer in loaded.layers}
    assert keras.layers.LayerNormalization in kinds
    assert not kinds & {GELU, LayerNormalization}
    assert np.array_equal(loaded(batch), built(batch))
    again = build_model("convnext_atto", 32, seed=8, weights=str(path), weights_sha256=store.sha256(path))
    assert {GELU, LayerNormalization} <= {type(layer) for layer in again.layers}
    features = [keras.Model(model.input, model.get_layer("batch_normalization").input) for model in (again, built)]
    assert np.array_equal(*(model(batch) for model in features))


def test_saved_model_has_the_layers_of_leaf(images, tmp_path):
    built = build_model("convnext_atto", 32, seed=7)
    save_model(built, tmp_path / "a.keras")
    loaded = load_model(tmp_path / "a.keras")
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in built.layers]
    assert np.array_equal(loaded(images.astype(np.float32)), built(images.astype(np.float32)))


def test_layers_of_nested_models_are_replaced():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization(), keras.layers.Activation("gelu")])
    image = keras.Input((4,), name="image")
    cloned = clone(keras.Model(image, inner(image)), "outer", 1, "float32")
    assert [type(layer) for layer in cloned.layers[-1].layers] == [LayerNormalization, GELU]
