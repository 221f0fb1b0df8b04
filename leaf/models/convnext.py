"""ConvNeXt (Liu 2022, arXiv 2201.03545) and ConvNeXt V2 (Woo 2023, arXiv 2301.00808)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from leaf.models.backbones import IMAGENET_MEAN, IMAGENET_STD, VARIANTS, Variant
from leaf.models.layers import GlobalResponseNormalization, LayerScale

ATTO = VARIANTS["convnext_atto_patch"]
# The published value, 1e-6, is intended for hundreds of epochs on ImageNet. With a thousand images, blocks initialized
# so close to the identity stay close to it for most of training.
_LAYER_SCALE = 0.1


def convnext_atto(image: Any) -> Any:
    """Apply ConvNeXt atto with a convolutional stem (3.4 million parameters); return pooled features (N, 320).

    Widths and depths match timm's `convnext_atto`. Instead of 4×4 patches, the stem uses two 3×3 convolutions with max
    pooling (Xiao 2021, arXiv 2106.14881), because such a stem learns shape better from a few hundred images. `image`
    is a tensor (N, H, W, 3) in 0..255, with H and W at least 32.
    """
    x = _rescaling(image)
    for number, filters in enumerate((32, ATTO.dims[0])):
        name = f"stem_conv_{number}"
        conv = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name)
        x = layers.MaxPooling2D(2, name=f"stem_pool_{number}")(conv(x))
    x = layers.LayerNormalization(epsilon=1e-6, name="stem_norm")(x)
    return _stages(x, ATTO)


def convnext(image: Any, variant: Variant) -> Any:
    """Apply timm's ConvNeXt `variant` to `image` (see `convnext_atto`); return features (N, `variant.dims[-1]`)."""
    x = _rescaling(image)
    if variant.stem_width:
        for number, width in enumerate((variant.stem_width, variant.dims[0])):
            x = layers.ZeroPadding2D(1, name=f"stem_pad_{number}")(x)  # with stride 2, "same" pads only one side
            name = f"stem_conv_{number}"
            x = layers.Conv2D(width, 3, strides=2, kernel_initializer=_initial(), name=name)(x)
    else:
        x = layers.Conv2D(variant.dims[0], 4, strides=4, kernel_initializer=_initial(), name="stem_conv")(x)
    x = layers.LayerNormalization(epsilon=1e-6, name="stem_norm")(x)
    return _stages(x, variant)


def _rescaling(image: Any) -> Any:
    return layers.Rescaling(*rescaling(IMAGENET_MEAN, IMAGENET_STD), name="rescaling_imagenet")(image)


def rescaling(mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the scale and offset that normalize images in 0..255, given the mean and standard deviation in 0..1."""
    return [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]


def _stages(x: Any, variant: Variant) -> Any:
    for stage, (dim, depth) in enumerate(zip(variant.dims, variant.depths, strict=True)):
        if stage:
            x = layers.LayerNormalization(epsilon=1e-6, name=f"stage_{stage}_down_norm")(x)
            name = f"stage_{stage}_down_conv"
            x = layers.Conv2D(dim, 2, strides=2, kernel_initializer=_initial(), name=name)(x)
        for block in range(depth):
            x = _block(x, dim, f"stage_{stage}_block_{block}", variant.v2)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.LayerNormalization(epsilon=1e-6, name="norm")(x)


def _block(inputs: Any, dim: int, name: str, v2: bool) -> Any:
    x = layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_initial(), name=f"{name}_depthwise")(inputs)
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    x = layers.Dense(4 * dim, kernel_initializer=_initial(), name=f"{name}_expand")(x)
    x = layers.Activation("gelu", name=f"{name}_gelu")(x)
    if v2:
        x = GlobalResponseNormalization(name=f"{name}_grn")(x)
    x = layers.Dense(dim, kernel_initializer=_initial(), name=f"{name}_project")(x)
    if not v2:
        x = LayerScale(_LAYER_SCALE, dim, name=f"{name}_scale")(x)
    return layers.Add(name=f"{name}_add")([inputs, x])


def _initial() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)
