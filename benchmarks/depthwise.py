"""Alternatives to DepthwiseConv2D for ConvNeXt's 7×7 convolutions: same weights and outputs, different operations."""

from typing import Any

import keras
from keras import ops


class ShiftedDepthwise(keras.layers.DepthwiseConv2D):
    """Sum one shifted product per kernel position in float32; XLA can fuse the 49 products into one operation."""

    def call(self, inputs: Any) -> Any:
        height, width = self.kernel_size
        rows, columns = ((size - 1) // 2 for size in self.kernel_size)
        padded = ops.pad(inputs, ((0, 0), (rows, height - 1 - rows), (columns, width - 1 - columns), (0, 0)))
        kernel, total = ops.cast(self.kernel, "float32"), ops.cast(self.bias, "float32")
        for row in range(height):
            for column in range(width):
                window = padded[:, row : row + inputs.shape[1], column : column + inputs.shape[2]]
                total = total + ops.cast(window, "float32") * kernel[row, column, :, 0]
        return ops.cast(total, inputs.dtype)


class ChannelsFirstDepthwise(keras.layers.DepthwiseConv2D):
    """Transpose to NCHW, convolve, and transpose back. TensorFlow supports this only on a GPU."""

    def call(self, inputs: Any) -> Any:
        first = ops.transpose(inputs, (0, 3, 1, 2))
        convolved = ops.depthwise_conv(first, self.kernel, padding=self.padding, data_format="channels_first")
        return ops.transpose(convolved, (0, 2, 3, 1)) + ops.cast(self.bias, inputs.dtype)


KINDS = {"nhwc": keras.layers.DepthwiseConv2D, "shifted": ShiftedDepthwise, "nchw": ChannelsFirstDepthwise}


def with_depthwise(model: keras.Model, kind: str) -> keras.Model:
    """Return a model with the same weights and `KINDS[kind]` as 7×7 depthwise convolutions."""
    if kind == "nhwc":
        return model

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) and layer.kernel_size == (7, 7)
        return (KINDS[kind] if depthwise else type(layer)).from_config(layer.get_config())

    replaced = keras.models.clone_model(model, clone_function=replace)
    replaced.set_weights(model.get_weights())
    return replaced
