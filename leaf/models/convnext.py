"""ConvNeXt for small images, trained from scratch (Liu 2022, arXiv 2201.03545)."""

from typing import Any

import keras
from keras import layers

from leaf.models.layers import LayerScale

ATTO_DIMS = (40, 80, 160, 320)
ATTO_DEPTHS = (2, 2, 6, 2)
# The published 1e-6 suits hundreds of epochs on ImageNet. With a thousand images, blocks that start so close to the
# identity stay there for most of the training.
_LAYER_SCALE = 0.1


def convnext_atto(image: Any) -> Any:
    """Apply ConvNeXt atto with a convolutional stem (3.4 million parameters).

    Widths and depths are those of timm's `convnext_atto`. The stem is two 3×3 convolutions with max pooling instead of
    4×4 patches (Xiao 2021, arXiv 2106.14881), which learns shape better from a few hundred images.

    Args:
        image: tensor (N, H, W, 3) in 0..255; H and W at least 32.

    Returns:
        Pooled features (N, 320).
    """
    x = layers.Rescaling(
        [1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)],
        [-mean / deviation for mean, deviation in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))],
        name="rescaling_imagenet",
    )(image)
    for number, filters in enumerate((32, ATTO_DIMS[0])):
        name = f"stem_conv_{number}"
        conv = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name)
        x = layers.MaxPooling2D(2, name=f"stem_pool_{number}")(conv(x))
    x = layers.LayerNormalization(epsilon=1e-6, name="stem_norm")(x)
    for stage, (dim, depth) in enumerate(zip(ATTO_DIMS, ATTO_DEPTHS, strict=True)):
        if stage:
            x = layers.LayerNormalization(epsilon=1e-6, name=f"stage_{stage}_down_norm")(x)
            name = f"stage_{stage}_down_conv"
            x = layers.Conv2D(dim, 2, strides=2, kernel_initializer=_initial(), name=name)(x)
        for block in range(depth):
            x = _block(x, dim, f"stage_{stage}_block_{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.LayerNormalization(epsilon=1e-6, name="norm")(x)


def _block(inputs: Any, dim: int, name: str) -> Any:
    x = layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_initial(), name=f"{name}_depthwise")(inputs)
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    x = layers.Dense(4 * dim, kernel_initializer=_initial(), name=f"{name}_expand")(x)
    x = layers.Activation("gelu", name=f"{name}_gelu")(x)
    x = layers.Dense(dim, kernel_initializer=_initial(), name=f"{name}_project")(x)
    x = LayerScale(_LAYER_SCALE, dim, name=f"{name}_scale")(x)
    return layers.Add(name=f"{name}_add")([inputs, x])


def _initial() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)
