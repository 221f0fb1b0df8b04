"""Custom Keras layers, registered under `leaf`."""

import math
import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable("leaf")


class SameShapeLayer(keras.layers.Layer):
    """Base class for layers whose output has the same shape as the input."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@register
class LayerScale(SameShapeLayer):
    """Multiply each of `projection_dim` channels by a learned factor (Touvron 2021, arXiv 2103.17239).

    keras.applications does not register its own version, so models that contain it cannot be loaded.
    """

    def __init__(self, init_values: float, projection_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_values, self.projection_dim = init_values, projection_dim

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        initial = keras.initializers.Constant(self.init_values)
        self.gamma = self.add_weight(name="gamma", shape=(self.projection_dim,), initializer=initial)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return inputs * self.gamma

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "init_values": self.init_values, "projection_dim": self.projection_dim}


@register
class GlobalResponseNormalization(SameShapeLayer):
    """Global response normalization (Woo 2023, arXiv 2301.00808): x + beta + gamma · x · ‖x‖ / (mean ‖x‖ + 1e-6).

    ‖x‖ is the norm over height and width; the mean is taken over channels.
    """

    epsilon = 1e-6

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="zeros")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        wide = _at_least_float32(inputs)
        square = ops.sum(ops.square(wide), axis=(1, 2), keepdims=True)
        norm = ops.sqrt(ops.maximum(square, 1e-30))  # keeps the gradient finite at zero
        scaled = wide * (norm / (ops.mean(norm, axis=-1, keepdims=True) + self.epsilon))
        return ops.cast(wide + self.beta + self.gamma * scaled, inputs.dtype)


@register
class CaffePreprocessing(SameShapeLayer):
    """Convert RGB in 0..255 to BGR and subtract the ImageNet channel means, as ResNet50's published weights expect."""

    mean = (103.939, 116.779, 123.68)  # blue, green, red; keras.applications.imagenet_utils

    def call(self, inputs: Any) -> Any:
        return ops.flip(inputs, axis=-1) - ops.convert_to_tensor(self.mean, dtype=inputs.dtype)


@register
class LayerNormalization(keras.layers.LayerNormalization):
    """Keras's LayerNormalization, compiled by XLA during training with TensorFlow on a CPU.

    Inference, export and other backends use Keras's own implementation.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        last_axis = list(self.axis) in ([-1], [len(inputs.shape) - 1])
        if training and last_axis and self.center and self.scale and not self.rms_scaling and _uses_xla():
            return ops.cast(_normalize(inputs, self.gamma, self.beta, self.epsilon), self.compute_dtype)
        return super().call(inputs)


@register
class GELU(SameShapeLayer):
    """The exact GELU (Hendrycks 2016, arXiv 1606.08415), compiled like `LayerNormalization`."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return _gelu(inputs) if training and _uses_xla() else ops.gelu(inputs, approximate=False)


def _uses_xla() -> bool:
    """Return whether Keras runs TensorFlow on a CPU, where XLA fuses operations into fewer passes over memory."""
    return keras.backend.backend() == "tensorflow" and not sys.modules["tensorflow"].config.list_physical_devices("GPU")


def _xla(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with XLA if the backend is TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return function
    return sys.modules["tensorflow"].function(function, autograph=False, jit_compile=True)


def _at_least_float32(x: Any) -> Any:
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def _normalize(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    @ops.custom_gradient
    def normalize(x: Any, gamma: Any, beta: Any) -> Any:
        y, mean, factor = _normalization(x, gamma, beta, epsilon)
        return y, lambda upstream: _normalization_gradient(x, mean, factor, gamma, upstream)

    # Copy the variables, because TensorFlow in eager mode handles custom gradients of variables differently.
    return normalize(x, ops.copy(gamma), ops.copy(beta))


@_xla
def _normalization(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    wide = _at_least_float32(x)
    mean = ops.mean(wide, -1, keepdims=True)
    factor = ops.rsqrt(ops.mean(ops.square(wide - mean), -1, keepdims=True) + epsilon)
    return ops.cast((wide - mean) * factor * gamma + beta, x.dtype), mean, factor


@_xla
def _normalization_gradient(x: Any, mean: Any, factor: Any, gamma: Any, upstream: Any) -> Any:
    """Return the gradients with respect to x, gamma and beta.

    Sums over channels are computed as matrix products, because XLA sums one value at a time.
    """
    channels = x.shape[-1]
    flat, g = (ops.reshape(_at_least_float32(each), (-1, channels)) for each in (x, upstream))
    mean, factor, column = (ops.reshape(each, (-1, 1)) for each in (mean, factor, gamma))
    sums = ops.matmul(g, column)
    products = factor * (ops.matmul(g * flat, column) - mean * sums)
    standard = (flat - mean) * factor
    dx = factor * (g * gamma - (sums + standard * products) / channels)
    return ops.cast(ops.reshape(dx, ops.shape(x)), x.dtype), ops.sum(g * standard, 0), ops.sum(g, 0)


@ops.custom_gradient
def _gelu(x: Any) -> Any:
    return _gelu_value(x), lambda upstream: _gelu_gradient(x, upstream)


@_xla
def _gelu_value(x: Any) -> Any:
    wide = _at_least_float32(x)
    return ops.cast(wide * _normal_cdf(wide), x.dtype)


@_xla
def _gelu_gradient(x: Any, upstream: Any) -> Any:
    wide = _at_least_float32(x)
    density = ops.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return ops.cast(_at_least_float32(upstream) * (_normal_cdf(wide) + wide * density), x.dtype)


def _normal_cdf(x: Any) -> Any:
    return 0.5 * (1 + ops.erf(x * math.sqrt(0.5)))
