"""Our own backbones, which learn from random weights: a ConvNeXt (Liu 2022, arXiv 2201.03545) for small images, and
CNNs of three sizes: convolutions and max pooling, a dense layer, dropout, average pooling."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import layers

from leaf.models.layers import LayerScale

ATTO_DIMS = (40, 80, 160, 320)
ATTO_DEPTHS = (2, 2, 6, 2)
# The published 1e-6 is for hundreds of epochs on ImageNet; from random weights on a thousand images every block would
# stay close to the identity for most of the training.
_LAYER_SCALE = 0.1


def convnext_atto(image: Any) -> Any:
    """ConvNeXt atto (dims and depths of timm's `convnext_atto`, 3.4 million parameters) with depthwise convolutions.

    Its stem is two convolutions with max pooling in place of 4×4 patches (Xiao 2021, arXiv 2106.14881): from random
    weights on a few hundred images they learn form, where patches learn little but colour.

    Args:
        image: tensor (N, H, W, 3), values 0..255, H and W at least 32.

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


def _cnn(image: Any, stages: Sequence[int], convolutions: int, normalized: bool, dense: int, rate: float) -> Any:
    """Give pooled features (N, dense) of `image` (N, H, W, 3) in 0..255; each stage halves the map.

    The dense layer comes before the average (it acts at each place of the map, as a 1×1 convolution does), so that the
    head stays linear in the map and shows where a class was seen.
    """
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescaling_to_one")(image)
    for stage, filters in enumerate(stages):
        for number in range(convolutions):
            name = f"stage_{stage}_conv_{number}"
            bias = not normalized
            x = layers.Conv2D(filters, 3, padding="same", use_bias=bias, kernel_initializer="he_normal", name=name)(x)
            if normalized:
                x = layers.BatchNormalization(name=f"{name}_norm")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"stage_{stage}_pool")(x)
    x = layers.Dense(dense, activation="relu", kernel_initializer="he_normal", name="features")(x)
    x = layers.Dropout(rate, name="features_dropout")(x)
    return layers.GlobalAveragePooling2D(name="pool")(x)


cnn_small: Callable[[Any], Any] = partial(
    _cnn, stages=(32, 64, 128), convolutions=1, normalized=False, dense=128, rate=0.3
)
cnn_medium: Callable[[Any], Any] = partial(
    _cnn, stages=(32, 64, 128, 256), convolutions=1, normalized=True, dense=256, rate=0.3
)
cnn_large: Callable[[Any], Any] = partial(
    _cnn, stages=(32, 64, 128, 256, 512), convolutions=2, normalized=True, dense=512, rate=0.4
)
