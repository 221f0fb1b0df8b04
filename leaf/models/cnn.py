"""Backbones trained from scratch: CNNs of three sizes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from keras import layers


def _cnn(image: Any, stages: Sequence[int], convolutions: int, normalized: bool, dense: int, rate: float) -> Any:
    """Return pooled features (N, dense) for images (N, H, W, 3) in 0..255; each stage halves the feature map.

    The dense layer precedes the average pooling and acts as a 1×1 convolution, so that the head stays linear in the
    last feature map, as Grad-CAM requires.
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
