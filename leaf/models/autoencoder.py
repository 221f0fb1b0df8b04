"""Autoencoder for anomaly detection, and the layers it shares with the GAN.

A detector is trained on healthy leaves only. The difference between an image and its reconstruction (`residual`) is
reduced to one number, the `score`, which is converted to the logits [0, scale · (score − threshold)]. `scale` and
`threshold` are fitted on validation images, so that evaluation, prediction and export can treat a detector like a
classifier.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from leaf.models.layers import register

SMALLEST = 1e-8  # keeps the logarithm finite for a perfect reconstruction


@register
class Residual(layers.Layer):
    """Rescale images (N, H, W, 3) from 0..255 to −1..1 and subtract their reconstructions."""

    def call(self, inputs: Any) -> Any:
        image, reconstruction = inputs
        return image / 127.5 - 1.0 - reconstruction


@register
class ReconstructionScore(layers.Layer):
    """Compute an anomaly score (N, 1) from residuals and optional feature differences; higher means less healthy.

    The score is the logarithm of a sum: the mean square of the residual, plus `feature_weight` (κ in f-AnoGAN, Schlegl
    2019) times the mean square of each feature difference.

    With `redness`, a hand-crafted color cue replaces the mean square of the residual. It measures how much redder,
    relative to green, the image is than its reconstruction, because spots, blight and yellowing are redder than healthy
    tissue. The excess redness is averaged over `block`×`block` pixels and squared. The cue is the mean of these squares
    over the `worst` fraction of pixels, those with the highest values.
    """

    # `redness` defaults to True because models saved before the parameter existed use the color cue.
    def __init__(
        self, block: int = 2, worst: float = 0.05, feature_weight: float = 1.0, redness: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.block, self.worst, self.feature_weight, self.redness = block, worst, feature_weight, redness

    def errors(self, residual: Any) -> Any:
        """Convert residuals (N, H, W, 3) to nonnegative errors per pixel (N, H, W)."""
        if not self.redness:
            return ops.mean(ops.square(residual), axis=-1)
        redder = residual[..., :1] - residual[..., 1:2]
        smooth = ops.average_pool(redder, self.block, strides=1, padding="same")
        return ops.square(ops.relu(smooth[..., 0]))

    def call(self, inputs: Any) -> Any:
        residual, *differences = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        errors = self.errors(residual)
        pixels = errors.shape[1] * errors.shape[2]
        errors = ops.reshape(errors, (-1, pixels))
        if self.redness:
            errors = ops.top_k(errors, max(1, round(pixels * self.worst)))[0]
        error = ops.mean(errors, axis=1)
        for difference in differences:
            error = error + self.feature_weight * ops.mean(ops.square(difference), axis=(1, 2, 3))
        return ops.expand_dims(ops.log(error + SMALLEST), -1)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("block", "worst", "feature_weight", "redness")}
        return {**super().get_config(), **own}


@register
class ScoreLogits(layers.Layer):
    """Convert scores (N, 1) to logits (N, 2): 0 and scale · (score − threshold).

    `scale` and `threshold` are non-trainable weights.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones", trainable=False)
        self.threshold = self.add_weight(name="threshold", shape=(), initializer="zeros", trainable=False)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return ops.concatenate([ops.zeros_like(inputs), self.scale * (inputs - self.threshold)], axis=-1)


def calibrate_detector(model: keras.Model, scale: float, threshold: float) -> None:
    """Set the `scale` and `threshold` of a detector's `ScoreLogits` layer in place."""
    layer = model.get_layer("logits")
    layer.scale.assign(scale)
    layer.threshold.assign(threshold)


def is_detector_model(model: keras.Model) -> bool:
    """Return whether `model` is a detector."""
    return any(layer.name == "residual" for layer in model.layers)


_WIDTHS = (16, 32, 64, 96)
_CODE = 16  # channels of the latent code; its side is 1/16 of the image side, so it has 2% as many values as the image


def encode(image: Any, dropout: float, end: Callable[[Any], Any]) -> Any:
    """Apply dropout and an encoder, which consists of strided convolutions and `end`; return the latent code."""
    scaled = x = keras.Input(image.shape[1:], name="encoder_image")
    for number, width in enumerate(_WIDTHS):
        x = layers.Conv2D(width, 4, strides=2, padding="same", name=f"encoder_conv_{number}")(x)
        x = layers.LayerNormalization(name=f"encoder_norm_{number}")(x)
        x = layers.LeakyReLU(0.2, name=f"encoder_relu_{number}")(x)
    encoder = keras.Model(scaled, end(x), name="encoder")
    dropped = layers.Dropout(dropout, name="dropout")(image)
    code = encoder(layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(dropped))
    return layers.Activation("linear", name="latent")(code)


def autoencoder(image_size: int, dropout: float, redness: bool = False) -> keras.Model:
    """Build a convolutional autoencoder that maps images (N, H, W, 3) in 0..255 to logits (N, 2).

    H and W are `image_size`, a multiple of 16. Dropout is applied to the image. For `redness`, see
    `ReconstructionScore`.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    code = encode(image, dropout, layers.Conv2D(_CODE, 1, name="encoder_code"))
    reconstruction = _decoder(code.shape[1:])(code)
    residual = Residual(name="residual")([image, reconstruction])
    score = ReconstructionScore(redness=redness, name="score")(residual)
    return keras.Model(image, ScoreLogits(name="logits")(score))


def _decoder(shape: tuple[int, ...]) -> keras.Model:
    code = x = keras.Input(shape, name="decoder_code")
    for number, width in enumerate(reversed(_WIDTHS[:-1])):
        x = layers.Conv2DTranspose(width, 4, strides=2, padding="same", name=f"decoder_conv_{number}")(x)
        x = layers.LayerNormalization(name=f"decoder_norm_{number}")(x)
        x = layers.LeakyReLU(0.2, name=f"decoder_relu_{number}")(x)
    image = layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh", name="decoder_image")
    return keras.Model(code, image(x), name="decoder")
