"""The networks by name: how each is made, what its preprocessing is, where published weights come from."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import applications, layers

from leaf.errors import LeafError
from leaf.networks import gan, scratch
from leaf.networks.detector import autoencoder
from leaf.networks.layers import CaffePreprocessing


@dataclass(frozen=True)
class Backbone:
    """A network that turns an image into pooled features.

    Attributes:
        features: tensor (N, H, W, 3) to pooled features (N, D); for a family of keras.applications, after
            `preprocessing`.
        why: one line for a person who chooses.
        minimum: smallest side of an image, in pixels.
        application: keras.applications' constructor, where there is one; its weight files fit.
        preprocessing: makes the layer that turns 0..255 into what the published weights expect; None where the
            network does so itself.
    """

    features: Callable[[Any], Any]
    why: str
    minimum: int = 32
    application: Callable[..., keras.Model] | None = None
    preprocessing: Callable[[], layers.Layer] | None = None


@dataclass(frozen=True)
class Detector:
    """A network that scores how unlike a healthy leaf an image is.

    Attributes:
        layout: side of the images in pixels and dropout to a model from images to logits.
        why: one line for a person who chooses.
    """

    layout: Callable[[int, float], keras.Model]
    why: str


def names() -> list[str]:
    """All names that `backbone` may have, classifiers before detectors."""
    return [*_BACKBONES, *_DETECTORS]


def why(name: str) -> str:
    """One line for a person who chooses."""
    return _DETECTORS[name].why if name in _DETECTORS else find(name).why


def is_detector(name: str) -> bool:
    """Whether a network learns only from healthy leaves and scores what is unlike them."""
    return name in _DETECTORS


def find_detector(name: str) -> Detector:
    """Give the detector of that name."""
    return _DETECTORS[name]


def find(name: str) -> Backbone:
    """Give the backbone of that name. Raises LeafError with the closest names."""
    if name not in _BACKBONES:
        near = difflib.get_close_matches(name, names(), 1)
        valid = f"did you mean {near[0]}?" if near else f"valid: {', '.join(names())}"
        raise LeafError(f"backbone: {name!r} is unknown; {valid}")
    return _BACKBONES[name]


def _published(
    application: Callable[..., keras.Model],
    why: str,
    minimum: int = 32,
    preprocessing: Callable[[], layers.Layer] | None = None,
) -> Backbone:
    def features(image: Any) -> Any:
        return application(include_top=False, weights=None, input_tensor=image, pooling="avg").output

    return Backbone(features, why, minimum, application, preprocessing)


def _to_one() -> layers.Layer:
    return layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")


def _caffe() -> layers.Layer:
    return CaffePreprocessing(name="preprocessing")


_BACKBONES = {
    "convnext_atto": Backbone(scratch.convnext_atto, "ConvNeXt for small images and two cores, from random weights"),
    "convnext_tiny": _published(applications.ConvNeXtTiny, "ConvNeXt, 28 million parameters"),
    "convnext_small": _published(applications.ConvNeXtSmall, "ConvNeXt, 49 million parameters"),
    "convnext_base": _published(applications.ConvNeXtBase, "ConvNeXt, 88 million parameters"),
    "convnext_large": _published(applications.ConvNeXtLarge, "ConvNeXt, 196 million parameters: the report's best"),
    "convnext_xlarge": _published(applications.ConvNeXtXLarge, "ConvNeXt, 349 million parameters"),
    "efficientnet_v2_b0": _published(applications.EfficientNetV2B0, "the report's transfer learning, 6 million"),
    "mobilenet": _published(applications.MobileNet, "MobileNet, 3 million parameters", preprocessing=_to_one),
    "mobilenet_v2": _published(applications.MobileNetV2, "MobileNetV2, 2 million parameters", preprocessing=_to_one),
    "resnet50": _published(applications.ResNet50, "ResNet50, 24 million parameters", preprocessing=_caffe),
    "cnn_small": Backbone(scratch.cnn_small, "three convolutions from random weights, 110 thousand parameters", 16),
    "cnn_medium": Backbone(scratch.cnn_medium, "four convolutions from random weights, 460 thousand parameters", 16),
    "cnn_large": Backbone(scratch.cnn_large, "ten convolutions from random weights, 5 million parameters", 32),
    "xception": _published(applications.Xception, "Xception, 21 million parameters", 71, _to_one),
}

_DETECTORS = {
    "autoencoder": Detector(autoencoder, "convolutional auto-encoder of healthy leaves, reconstruction error"),
    "autoencoder_redness": Detector(partial(autoencoder, redness=True), "the same, scored by a cue of colour"),
    "gan": Detector(gan.layout, "GAN of BigGAN's blocks with f-AnoGAN's encoder and score"),
    "gan_redness": Detector(partial(gan.layout, redness=True), "the same, scored by a cue of colour and features"),
}
