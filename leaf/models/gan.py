"""GAN trained on healthy leaves, with BigGAN's blocks and f-AnoGAN's encoder and score.

The generator and discriminator use BigGAN's residual blocks (Brock 2018, arXiv 1809.11096) at half the image
resolution, with spectral normalization, orthogonal initialization and the hinge loss. Attention, skip-z connections,
class conditioning and the generator's moving average are omitted, because the images are small and show a single class.
The generator normalizes over channels instead of the batch, so an image's score does not depend on the other images in
its batch. The encoder maps an image to the generator's latent vector. The score combines the residual of the image with
that of its discriminator features (f-AnoGAN, Schlegl 2019).
"""

from typing import Any

import keras
from keras import layers, ops

from leaf.models.autoencoder import ReconstructionScore, Residual, ScoreLogits, encode
from leaf.models.layers import register


@register
class SpectralConv2D(keras.layers.Conv2D):
    """Conv2D with spectral normalization (Miyato 2018, arXiv 1802.05957).

    The kernel is treated as a matrix (height · width · channels, filters). The estimate of its leading singular vector
    is a non-trainable weight. Each forward pass in training updates it by one power iteration.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.direction = self.add_weight(
            name="direction", shape=(1, self.filters), initializer="ones", trainable=False, dtype="float32"
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = self.convolution_op(inputs, self._normalized(training))
        return outputs + ops.cast(self.bias, outputs.dtype) if self.use_bias else outputs

    # Conv2D overrides these methods to save and load only the kernel and the bias.
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


LATENT = 128  # size of the latent vector
_UP = (96, 64, 32, 16)  # channels of the generator, at 1/16 to 1/2 of the image side
_DOWN = (16, 32, 64)  # channels of the discriminator, at 1/4 to 1/16 of the image side


def gan(image_size: int, dropout: float, redness: bool = False) -> keras.Model:
    """Build a GAN with an encoder that maps images (N, H, W, 3) in 0..255 to logits (N, 2).

    The arguments are those of `autoencoder`. Dropout acts only while the encoder is trained.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    reconstruction = _generator(image_size)(encode(image, dropout, _latent))
    residual = Residual(name="residual")([image, reconstruction])
    features = _features(image_size)
    true = features(layers.Rescaling(1 / 127.5, -1.0, name="scaled")(image))
    difference = layers.Subtract(name="difference")([true, features(reconstruction)])
    score = ReconstructionScore(redness=redness, name="score")([residual, difference])
    return keras.Model(image, ScoreLogits(name="logits")(score))


def discriminator(model: keras.Model, seed: int) -> keras.Model:
    """Return a GAN's discriminator with a new last layer; it maps images (N, H, W, 3) in −1..1 to (N, 1, 1, 1)."""
    features = model.get_layer("features")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="critic_pool")(features.output)
    initial = keras.initializers.Orthogonal(seed=seed)
    return keras.Model(features.input, SpectralConv2D(1, 1, kernel_initializer=initial, name="critic")(x))


def _latent(x: Any) -> Any:
    x = layers.Flatten(name="encoder_flat")(x)
    return layers.Dense(LATENT, name="encoder_code")(x)


def _generator(image_size: int) -> keras.Model:
    code = keras.Input((LATENT,), name="generator_code")
    side = image_size // 16
    x = layers.Reshape((1, 1, LATENT), name="generator_point")(code)
    x = _conv(side * side * _UP[0], 1, "generator_start")(x)
    x = layers.Reshape((side, side, _UP[0]), name="generator_map")(x)
    for number, width in enumerate(_UP[1:]):
        x = _up(x, width, f"generator_{number}")
    x = layers.LayerNormalization(name="generator_norm")(x)
    x = layers.ReLU(name="generator_relu")(x)
    x = _conv(3, 3, "generator_rgb")(x)
    x = layers.Activation("tanh", name="generator_half")(x)
    image = layers.UpSampling2D(2, interpolation="bilinear", name="generator_image")(x)
    return keras.Model(code, image, name="generator")


def _up(inputs: Any, width: int, name: str) -> Any:
    x = layers.LayerNormalization(name=f"{name}_norm_0")(inputs)
    x = layers.ReLU(name=f"{name}_relu_0")(x)
    x = layers.UpSampling2D(2, name=f"{name}_up")(x)
    x = _conv(width, 3, f"{name}_conv_0")(x)
    x = layers.LayerNormalization(name=f"{name}_norm_1")(x)
    x = layers.ReLU(name=f"{name}_relu_1")(x)
    x = _conv(width, 3, f"{name}_conv_1")(x)
    # Convolving before upsampling gives the same result with a quarter of the operations.
    short = _conv(width, 1, f"{name}_short")(inputs)
    short = layers.UpSampling2D(2, name=f"{name}_short_up")(short)
    return layers.Add(name=f"{name}_add")([x, short])


def _features(image_size: int) -> keras.Model:
    image = keras.Input((image_size, image_size, 3), name="features_image")
    x = layers.AveragePooling2D(2, name="features_half")(image)
    for number, width in enumerate(_DOWN):
        x = _down(x, width, f"features_{number}", first=number == 0)
    return keras.Model(image, layers.ReLU(name="features_relu")(x), name="features")


def _down(inputs: Any, width: int, name: str, first: bool) -> Any:
    x = inputs if first else layers.ReLU(name=f"{name}_relu_0")(inputs)
    x = _conv(width, 3, f"{name}_conv_0")(x)
    x = layers.ReLU(name=f"{name}_relu_1")(x)
    x = _conv(width, 3, f"{name}_conv_1")(x)
    x = layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    short = layers.AveragePooling2D(2, name=f"{name}_short_pool")(inputs)
    return layers.Add(name=f"{name}_add")([x, _conv(width, 1, f"{name}_short")(short)])


def _conv(width: int, side: int, name: str) -> SpectralConv2D:
    return SpectralConv2D(width, side, padding="same", kernel_initializer="orthogonal", name=name)
