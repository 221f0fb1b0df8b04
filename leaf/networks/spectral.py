"""A convolution whose kernel has spectral norm 1 (Miyato 2018, arXiv 1802.05957)."""

from typing import Any

import keras
from keras import ops

from leaf.networks.layers import register


@register
class SpectralConv2D(keras.layers.Conv2D):
    """A Conv2D that divides its kernel by the largest singular value, found by one power iteration an update.

    As a matrix the kernel is (height · width · channels, filters). The iteration's vector is kept as a weight that
    does not learn; asking the network leaves it as it is.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.direction = self.add_weight(
            name="direction", shape=(1, self.filters), initializer="ones", trainable=False, dtype="float32"
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = self.convolution_op(inputs, self._normalized(training))
        return outputs + ops.cast(self.bias, outputs.dtype) if self.use_bias else outputs

    # Conv2D's own methods know its kernel and bias alone.
    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def _normalized(self, training: bool) -> Any:
        matrix = ops.cast(ops.reshape(self.kernel, (-1, self.filters)), "float32")
        direction = ops.cast(self.direction, "float32")
        left = ops.stop_gradient(_unit(ops.matmul(direction, ops.transpose(matrix))))
        right = ops.stop_gradient(_unit(ops.matmul(left, matrix)))
        if training:
            self.direction.assign(right)
        largest = ops.matmul(ops.matmul(left, matrix), ops.transpose(right))
        return self.kernel / ops.cast(ops.reshape(largest, ()), self.kernel.dtype)


def _unit(vector: Any) -> Any:
    return vector / (ops.sqrt(ops.sum(ops.square(vector))) + 1e-12)
