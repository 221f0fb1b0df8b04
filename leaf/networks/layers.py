"""Our own Keras layers: each registered under `leaf`, so that a saved network names them and no foreign class."""

from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable("leaf")


@register
class LayerScale(keras.layers.Layer):
    """Multiply each channel by a learned factor (Touvron 2021, arXiv 2103.17239).

    keras.applications has the same layer but does not register it, so a file that holds it cannot be loaded.

    Args:
        init_values: what every factor starts from.
        projection_dim: number of channels.
    """

    def __init__(self, init_values: float, projection_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_values = init_values
        self.projection_dim = projection_dim

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.gamma = self.add_weight(
            name="gamma",
            shape=(self.projection_dim,),
            initializer=keras.initializers.Constant(self.init_values),
        )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return inputs * self.gamma

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "init_values": self.init_values, "projection_dim": self.projection_dim}


@register
class CaffePreprocessing(keras.layers.Layer):
    """Turn RGB in 0..255 into what ResNet50's published weights expect: BGR less the mean of ImageNet's channels."""

    mean = (103.939, 116.779, 123.68)  # blue, green, red; keras.applications.imagenet_utils

    def call(self, inputs: Any) -> Any:
        return ops.flip(inputs, axis=-1) - ops.convert_to_tensor(self.mean, dtype=inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape
