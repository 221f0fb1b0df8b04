"""Backbones by name, with the settings each supports. Does not import Keras, which takes seconds."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaf import store
from leaf.errors import LeafError
from leaf.models.convnext_variants import KERAS_VARIANTS, VARIANTS, Variant
from leaf.models.timm_weights import PREFIX, restriction

WEIGHTS_SUFFIXES = (".h5", ".keras", ".safetensors")


@dataclass(frozen=True)
class Backbone:
    """A backbone or detector.

    Attributes:
        why: one-line description.
        operations: number of backbone operations, the upper limit of `freeze_depth`; 0 for a detector.
        minimum: smallest image side in pixels.
        step: the image side must be a multiple of this.
        published: whether ImageNet weights are available.
        detector: whether it is an anomaly detector, trained on healthy leaves only.
    """

    why: str
    operations: int = 0
    minimum: int = 32
    step: int = 1
    published: bool = True
    detector: bool = False


def _detector(why: str) -> Backbone:
    return Backbone(why, 0, 16, 16, published=False, detector=True)


def _timm_backbone(variant: Variant) -> Backbone:
    stem = ", overlapping stem" if variant.stem == "overlap" else ""
    kind = "ConvNeXt V2" if variant.v2 else "ConvNeXt"
    return Backbone(f"{kind} as in timm{stem}, {variant.parameters / 1e6:.1f} million parameters", variant.operations)


BACKBONES = {
    "convnext_atto": Backbone("ConvNeXt with a pooling stem, 3.4 million, trained from scratch", 99, published=False),
    **{name: _timm_backbone(each) for name, each in VARIANTS.items()},
    "convnext_tiny": Backbone("ConvNeXt, 28 million parameters", 152),
    "convnext_small": Backbone("ConvNeXt, 49 million parameters", 296),
    "convnext_base": Backbone("ConvNeXt, 88 million parameters", 296),
    "convnext_large": Backbone("ConvNeXt, 196 million parameters, the report's best", 296),
    "convnext_xlarge": Backbone("ConvNeXt, 349 million parameters", 296),
    "efficientnet_v2_b0": Backbone("EfficientNetV2B0, 6 million parameters", 271),
    "mobilenet": Backbone("MobileNet, 3 million parameters", 87),
    "mobilenet_v2": Backbone("MobileNetV2, 2 million parameters", 155),
    "resnet50": Backbone("ResNet50, 24 million parameters", 176),
    "cnn_small": Backbone("three convolutions, 110,000 parameters, trained from scratch", 14, 16, published=False),
    "cnn_medium": Backbone("four convolutions, 460,000 parameters, trained from scratch", 21, 16, published=False),
    "cnn_large": Backbone("ten convolutions, 5 million parameters, trained from scratch", 40, published=False),
    "xception": Backbone("Xception, 21 million parameters", 132, 71),
    "autoencoder": _detector("anomaly detector: convolutional auto-encoder, scored by reconstruction error"),
    "autoencoder_redness": _detector("anomaly detector: convolutional auto-encoder, scored by a color cue"),
    "gan": _detector("anomaly detector: GAN with BigGAN's blocks and f-AnoGAN's encoder and score"),
    "gan_redness": _detector("anomaly detector: GAN, scored by a color cue and features"),
}


# Parameters from params.yaml that `build_model` accepts.
BUILD_PARAMS = (
    "backbone",
    "image_size",
    "dropout",
    "dropout_at",
    "weights",
    "weights_sha256",
    "freeze_depth",
    "freeze_normalization",
    "head_initializer",
    "precision",
    "rematerialize",
    "seed",
)


SIZES = (128, 160)  # pixels; above 160 the gain is not worth the time (docs/backbones.md)


def recommended_runs(images: int, gpu: bool) -> list[str]:
    """Return the commands to try, in order, for this number of images on a CPU or a GPU."""
    if images < 1000 or not gpu:
        return ["leaf run probe", "leaf run transfer"]
    if images < 10_000:
        return ["leaf run probe_convnext", "leaf run transfer_convnext"]
    tiny = "-S backbone=convnext_tiny -S weights=timm/convnext_tiny.in12k_ft_in1k"
    return ["leaf run probe_convnext", f"leaf run transfer_convnext {tiny}"]


def recommended_size(side: int, image_size: int) -> int | None:
    """Return a larger recommended image size for originals of `side` pixels, or None."""
    return next((size for size in reversed(SIZES) if image_size < size <= side), None)


def find(name: str) -> Backbone:
    """Return a backbone by name; if it is unknown, raise LeafError suggesting the closest name."""
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, 1)
        valid = f"did you mean {near[0]}?" if near else f"valid: {', '.join(BACKBONES)}"
        raise LeafError(f"backbone: {name!r} is unknown; {valid}")
    return BACKBONES[name]


def is_detector(name: str) -> bool:
    """Return whether a backbone is an anomaly detector."""
    return find(name).detector


def check(params: Any, classes: int) -> None:
    """Raise LeafError if the settings do not fit the backbone.

    Args:
        params: has the attributes backbone, image_size, weights, freeze_depth, freeze_normalization, head_initializer
            and dropout_at.
        classes: number of classes.
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
    safetensors = params.weights.startswith(PREFIX) or Path(params.weights).suffix == ".safetensors"
    if safetensors:
        convnext_variant(name)
    if is_weights_file(params.weights) and Path(params.weights).suffix not in WEIGHTS_SUFFIXES:
        raise LeafError(f"weights: {params.weights}: unknown kind of file; valid: {', '.join(WEIGHTS_SUFFIXES)}")


_TIMM = VARIANTS | KERAS_VARIANTS


def convnext_variant(name: str) -> Variant:
    """Return the variant of a ConvNeXt for which timm publishes checkpoints; raise LeafError for other backbones."""
    if name not in _TIMM:
        raise LeafError(f"weights: .safetensors files do not fit {name}; valid backbones: {', '.join(_TIMM)}")
    return _TIMM[name]


def checkpoint_name(backbone: str, weights: str) -> str | None:
    """Return the timm checkpoint that `weights` names for a backbone, or None."""
    if weights == "imagenet" and backbone in VARIANTS:
        return VARIANTS[backbone].checkpoint
    return weights if weights.startswith(PREFIX) else None


def is_weights_file(weights: str) -> bool:
    """Return whether `weights` is a file rather than `random`, `imagenet` or a timm checkpoint."""
    return weights not in ("random", "imagenet") and not weights.startswith(PREFIX)


def check_weights_file(path: Path, sha256: str) -> None:
    """Raise LeafError unless the weights file exists and has this SHA-256."""
    if not path.is_file():
        raise LeafError(f"weights: {path}: no such file; valid: random, imagenet, or a weights file")
    found = store.sha256(path)
    if found != sha256:
        problem = f"{sha256} does not match {path}" if sha256 else f"required for {path}"
        raise LeafError(f"weights_sha256: {problem}; its SHA-256 is {found}")


def _check_detector(params: Any, classes: int) -> None:
    name = params.backbone
    if classes != 2:
        raise LeafError(f"backbone: {name} is a detector for two classes, not {classes}; valid: a classifier")
    only = {
        "weights": ("random", "which has no pretrained weights"),
        "freeze_depth": (0, "which has no backbone"),
        "freeze_normalization": (False, "which has no backbone"),
        "head_initializer": ("glorot_uniform", "which has no head"),
        "dropout_at": ("input", "which has no head"),
    }
    for key, (valid, why) in only.items():
        given = getattr(params, key)
        if given != valid:
            raise LeafError(f"{key}: {str(given).lower()}; valid: {str(valid).lower()} for {name}, {why}")


# Classifier settings that a detector ignores, with their neutral values.
_NEUTRAL = {
    "optimizer": "adam",
    "weight_decay": 0,
    "label_smoothing": 0,
    "weight_averaging": 0,
    "micro_batch": 0,
    "frozen_epochs": 0,
    "distribution": "none",
}


def check_recipe(recipe: Any, name: str) -> None:
    """Raise LeafError if an attribute of `recipe` differs from the value that the detector `name` supports."""
    if recipe.augmentation.background != "keep":
        raise LeafError(f"augmentation.background: swap; valid for {name}, a detector: keep")
    for key, value in _NEUTRAL.items():
        if getattr(recipe, key) != value:
            raise LeafError(f"{key}: {getattr(recipe, key)}; valid for {name}, a detector: {value}")


# Size in MB of the files published by keras.applications, and the file name prefix if it differs from the name.
_PUBLISHED = {"mobilenet": 17, "mobilenet_v2": 9, "efficientnet_v2_b0": 24, "resnet50": 95, "xception": 84}
_PUBLISHED |= {"convnext_tiny": 111, "convnext_small": 198, "convnext_base": 350, "convnext_large": 785}
_PUBLISHED |= {"convnext_xlarge": 1393}
_FILES = {"mobilenet": "mobilenet_1_0", "efficientnet_v2_b0": "efficientnetv2-b0"}


def describe_download(name: str, weights: str, image_size: int) -> str:
    """Describe in one line which pretrained weights training downloads and from where; "" if none."""
    size = ""
    if checkpoint := checkpoint_name(name, weights):
        weights = checkpoint
        terms = f", licensed under {found}" if (found := restriction(checkpoint)) else ""
        where = f"https://huggingface.co/{checkpoint.partition('@')[0]} unless Hugging Face's cache has them{terms}"
    elif weights == "imagenet":
        folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
        file = _FILES.get(name, name)
        if name == "mobilenet_v2":  # one file per size
            file += f"_*_{image_size if image_size in (96, 128, 160, 192) else 224}"
        if cached := sorted(folder.glob(f"{file}*_no*top.h5")):
            return f"imagenet for {name}: {cached[0]}"
        where = f"https://storage.googleapis.com/tensorflow/keras-applications to {folder}"
        size = f"{_PUBLISHED[name]} MB, "
    else:
        return ""
    return f"{weights} for {name}: {size}downloaded once from {where}. Without a network, pass a file: -S weights=FILE"
