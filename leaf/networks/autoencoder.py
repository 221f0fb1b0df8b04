"""A convolutional auto-encoder of healthy leaves: what it cannot give back is its score."""

import keras
from keras import layers

from leaf.networks.detector import ReconstructionScore, Residual, ScoreLogits, check_size, encoder

_WIDTHS = (16, 32, 64, 96)
_CODE = 16  # channels of the code, at a sixteenth of the side: 2 % of the image's numbers


def plan(image_size: int, dropout: float) -> keras.Model:
    """Lay out the auto-encoder with its score and logits; `rewriting.rewritten` makes the network of it.

    Args:
        image_size: side of the images in pixels, a multiple of 16.
        dropout: share of the input image's values that are set to 0 in training: it learns to fill them in.

    Returns:
        A model from images (N, H, W, 3) in 0..255 to logits (N, 2).
    """
    check_size(image_size, "autoencoder")
    image = keras.Input((image_size, image_size, 3), name="image")
    dropped = layers.Dropout(dropout, name="dropout")(image)
    scaled = layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(dropped)
    code = encoder(image_size, _WIDTHS, layers.Conv2D(_CODE, 1, name="encoder_code"))(scaled)
    code = layers.Activation("linear", name="latent")(code)
    reconstruction = _decoder(code.shape[1:])(code)
    residual = Residual(name="residual")([image, reconstruction])
    score = ReconstructionScore(name="score")(residual)
    return keras.Model(image, ScoreLogits(name="logits")(score))


def _decoder(shape: tuple[int, ...]) -> keras.Model:
    code = x = keras.Input(shape, name="decoder_code")
    for number, width in enumerate(reversed(_WIDTHS[:-1])):
        x = layers.Conv2DTranspose(width, 4, strides=2, padding="same", name=f"decoder_conv_{number}")(x)
        x = layers.LayerNormalization(name=f"decoder_norm_{number}")(x)
        x = layers.LeakyReLU(0.2, name=f"decoder_relu_{number}")(x)
    image = layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh", name="decoder_image")
    return keras.Model(code, image(x), name="decoder")
