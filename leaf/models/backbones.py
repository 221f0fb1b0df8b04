"""The networks by name, and what each can do; known without Keras, which takes seconds to import."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaf.errors import LeafError

WEIGHTS_SUFFIXES = (".h5", ".keras")


@dataclass(frozen=True)
class Backbone:
    """A network, as a person chooses it.

    Attributes:
        why: one line.
        operations: how many the backbone has, of which `freeze_depth` freezes the first; a detector has none.
        minimum: smallest side of an image, in pixels.
        step: the side is a multiple of it.
        published: whether ImageNet weights are.
        detector: whether it learns only from healthy leaves, and scores how unlike them an image is.
    """

    why: str
    operations: int = 0
    minimum: int = 32
    step: int = 1
    published: bool = True
    detector: bool = False


def _detector(why: str) -> Backbone:
    return Backbone(why, 0, 16, 16, published=False, detector=True)


BACKBONES = {
    "convnext_atto": Backbone("ConvNeXt for small images and two cores, from random weights", 99, published=False),
    "convnext_tiny": Backbone("ConvNeXt, 28 million parameters", 152),
    "convnext_small": Backbone("ConvNeXt, 49 million parameters", 296),
    "convnext_base": Backbone("ConvNeXt, 88 million parameters", 296),
    "convnext_large": Backbone("ConvNeXt, 196 million parameters: the report's best", 296),
    "convnext_xlarge": Backbone("ConvNeXt, 349 million parameters", 296),
    "efficientnet_v2_b0": Backbone("the report's transfer learning, 6 million", 271),
    "mobilenet": Backbone("MobileNet, 3 million parameters", 87),
    "mobilenet_v2": Backbone("MobileNetV2, 2 million parameters", 155),
    "resnet50": Backbone("ResNet50, 24 million parameters", 176),
    "cnn_small": Backbone("three convolutions from random weights, 110 thousand parameters", 14, 16, published=False),
    "cnn_medium": Backbone("four convolutions from random weights, 460 thousand parameters", 21, 16, published=False),
    "cnn_large": Backbone("ten convolutions from random weights, 5 million parameters", 40, published=False),
    "xception": Backbone("Xception, 21 million parameters", 132, 71),
    "autoencoder": _detector("convolutional auto-encoder of healthy leaves, reconstruction error"),
    "autoencoder_redness": _detector("the same, scored by a cue of colour"),
    "gan": _detector("GAN of BigGAN's blocks with f-AnoGAN's encoder and score"),
    "gan_redness": _detector("the same, scored by a cue of colour and features"),
}


def find(name: str) -> Backbone:
    """Give the network of that name. Raises LeafError with the closest one."""
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, 1)
        valid = f"did you mean {near[0]}?" if near else f"valid: {', '.join(BACKBONES)}"
        raise LeafError(f"backbone: {name!r} is unknown; {valid}")
    return BACKBONES[name]


def is_detector(name: str) -> bool:
    """Whether a network learns only from healthy leaves and scores what is unlike them."""
    return find(name).detector


def check(params: Any, classes: int) -> None:
    """Raise LeafError where the network cannot be what the keys of params.yaml ask of it, for so many classes.

    `params` has the attributes backbone, image_size, weights, freeze_depth, freeze_normalization, head_initializer and
    dropout_at.
    """
    name, kind, size = params.backbone, find(params.backbone), params.image_size
    if size < kind.minimum:
        raise LeafError(f"image_size: {size}; valid: at least {kind.minimum} for {name}")
    if size % kind.step:
        raise LeafError(f"image_size: {size}; valid: a multiple of {kind.step} for {name}")
    if kind.detector:
        _check_detector(params, classes)
    elif params.freeze_depth != "all" and params.freeze_depth > kind.operations:
        raise LeafError(f"freeze_depth: {params.freeze_depth}; valid: 0 to {kind.operations} for {name}, or all")
    if params.weights == "imagenet" and not kind.published:
        raise LeafError(f"weights: imagenet: none are published for {name}; valid: random, or a weights file")
    if params.weights not in ("random", "imagenet") and Path(params.weights).suffix not in WEIGHTS_SUFFIXES:
        raise LeafError(f"weights: {params.weights}: unknown kind of file; valid: {', '.join(WEIGHTS_SUFFIXES)}")


def _check_detector(params: Any, classes: int) -> None:
    name = params.backbone
    if classes != 2:
        raise LeafError(f"backbone: {name} is a detector, for two classes, not {classes}; valid: any other network")
    only = {
        "weights": ("random", "which learns from nothing else"),
        "freeze_depth": (0, "which has no backbone"),
        "freeze_normalization": (False, "which has no backbone"),
        "head_initializer": ("glorot_uniform", "which has no head"),
        "dropout_at": ("input", "which has no head"),
    }
    for key, (valid, why) in only.items():
        given = getattr(params, key)
        if given != valid:
            raise LeafError(f"{key}: {str(given).lower()}; valid: {str(valid).lower()} for {name}, {why}")


# What a classifier can do beside it, and a detector does not.
_ONLY = {
    "optimizer": "adam",
    "weight_decay": 0,
    "label_smoothing": 0,
    "weight_averaging": 0,
    "micro_batch": 0,
    "frozen_epochs": 0,
    "distribution": "none",
}


def check_recipe(recipe: Any, name: str) -> None:
    """Raise LeafError for a setting, an attribute of `recipe`, that the detector of that name would ignore."""
    if recipe.augmentation.background != "keep":
        raise LeafError(f"augmentation.background: swap; valid for {name}, a detector: keep")
    for key, value in _ONLY.items():
        if getattr(recipe, key) != value:
            raise LeafError(f"{key}: {getattr(recipe, key)}; valid for {name}, a detector: {value}")
