"""The available backbones and the settings that each supports. Importing this module does not import Keras."""

import difflib
import math
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from leaf.errors import LeafError

TIMM = "timm/"  # prefix of checkpoint names
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS_SUFFIXES = (".h5", ".keras", ".safetensors")


@dataclass(frozen=True)
class Variant:
    """The architecture of a ConvNeXt (Liu 2022, arXiv 2201.03545) or ConvNeXt V2 (Woo 2023, arXiv 2301.00808) in timm.

    Attributes:
        dims: channels of each stage.
        depths: blocks of each stage.
        stem_width: output channels of the first of two strided 3×3 convolutions; 0 for a stem of 4×4 patches.
        v2: use global response normalization instead of layer scale.
        checkpoint: timm checkpoint for `weights: imagenet`, or "" to use the weights of keras.applications.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    stem_width: int = 0
    v2: bool = False
    checkpoint: str = ""

    @property
    def parameters(self) -> int:
        """Number of parameters in the backbone."""
        return sum(map(math.prod, self.array_shapes().values()))

    @property
    def operations(self) -> int:
        """Number of operations in the backbone, including its input and rescaling."""
        return 12 + 7 * sum(self.depths) + (3 if self.stem_width else 0)

    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the Keras shape of each weight array, keyed by timm name and in Keras order."""
        shapes: dict[str, tuple[int, ...]] = {}

        def add(name: str, *kernel: int) -> None:
            shapes[f"{name}.weight"] = kernel
            shapes[f"{name}.bias"] = kernel[-1:] if kernel[-1] > 1 else kernel[-2:-1]  # a depthwise kernel ends in 1

        dims = self.dims
        if self.stem_width:
            add("stem.0", 3, 3, 3, self.stem_width)
            add("stem.1", 3, 3, self.stem_width, dims[0])
            add("stem.2", dims[0])
        else:
            add("stem.0", 4, 4, 3, dims[0])
            add("stem.1", dims[0])
        for stage, (dim, depth) in enumerate(zip(dims, self.depths, strict=True)):
            if stage:
                add(f"stages.{stage}.downsample.0", dims[stage - 1])
                add(f"stages.{stage}.downsample.1", 2, 2, dims[stage - 1], dim)
            for block in range(depth):
                name = f"stages.{stage}.blocks.{block}"
                add(f"{name}.conv_dw", 7, 7, dim, 1)
                add(f"{name}.norm", dim)
                add(f"{name}.mlp.fc1", dim, 4 * dim)
                if self.v2:
                    add(f"{name}.mlp.grn", 4 * dim)
                add(f"{name}.mlp.fc2", 4 * dim, dim)
                if not self.v2:
                    shapes[f"{name}.gamma"] = (dim,)
        add("head.norm", dims[-1])
        return shapes


_SIZES = {  # number of channels in the first stage, and number of blocks in each stage
    "atto": (40, (2, 2, 6, 2)),
    "femto": (48, (2, 2, 6, 2)),
    "pico": (64, (2, 2, 6, 2)),
    "nano": (80, (2, 2, 8, 2)),
    "tiny": (96, (3, 3, 9, 3)),
    "small": (96, (3, 3, 27, 3)),
    "base": (128, (3, 3, 27, 3)),
    "large": (192, (3, 3, 27, 3)),
    "xlarge": (256, (3, 3, 27, 3)),
    "huge": (352, (3, 3, 27, 3)),
}


def _variant(size: str, checkpoint: str = "", stem_width: int = 0, v2: bool = False) -> Variant:
    width, depths = _SIZES[size]
    return Variant((width, 2 * width, 4 * width, 8 * width), depths, stem_width, v2, checkpoint)


VARIANTS = {
    # This is timm's convnext_atto. In leaf, `convnext_atto` is the variant with a pooling stem, trained from scratch.
    "convnext_atto_patch": _variant("atto", "timm/convnext_atto.d2_in1k"),
    "convnext_femto": _variant("femto", "timm/convnext_femto.d1_in1k"),
    "convnext_pico": _variant("pico", "timm/convnext_pico.d1_in1k"),
    "convnext_nano": _variant("nano", "timm/convnext_nano.in12k_ft_in1k"),
    "convnext_atto_ols": _variant("atto", "timm/convnext_atto_ols.a2_in1k", 24),
    "convnext_femto_ols": _variant("femto", "timm/convnext_femto_ols.d1_in1k", 24),
    "convnext_pico_ols": _variant("pico", "timm/convnext_pico_ols.d1_in1k", 32),
    "convnext_nano_ols": _variant("nano", "timm/convnext_nano_ols.d1h_in1k", 80),
    **{
        f"convnextv2_{size}": _variant(size, f"timm/convnextv2_{size}.fcmae_ft_in1k", v2=True)
        for size in ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
    },
}

# These variants are built by keras.applications, so they can load its ImageNet weights as well as timm checkpoints.
KERAS_VARIANTS = {f"convnext_{size}": _variant(size) for size in ("tiny", "small", "base", "large", "xlarge")}


@dataclass(frozen=True)
class Backbone:
    """A backbone or detector.

    Attributes:
        why: one-line description.
        operations: number of backbone operations, the upper limit of `freeze_depth`; 0 for a detector.
        minimum: smallest supported image side in pixels.
        step: the image side must be a multiple of this.
        megabytes: size of the ImageNet weights published by keras.applications, or 0 if there are none.
        detector: whether it is an anomaly detector, trained on healthy leaves only.
    """

    why: str
    operations: int = 0
    minimum: int = 32
    step: int = 1
    megabytes: int = 0
    detector: bool = False


def _timm_backbone(variant: Variant) -> Backbone:
    stem = ", overlapping stem" if variant.stem_width else ""
    kind = "ConvNeXt V2" if variant.v2 else "ConvNeXt"
    return Backbone(f"{kind} as in timm{stem}, {variant.parameters / 1e6:.1f} million parameters", variant.operations)


def _detector(why: str) -> Backbone:
    return Backbone(f"anomaly detector: {why}", 0, 16, 16, detector=True)


BACKBONES = {
    "convnext_atto": Backbone("ConvNeXt with a pooling stem, 3.4 million parameters, trained from scratch", 99),
    **{name: _timm_backbone(each) for name, each in VARIANTS.items()},
    "convnext_tiny": Backbone("ConvNeXt, 28 million parameters", 152, megabytes=111),
    "convnext_small": Backbone("ConvNeXt, 49 million parameters", 296, megabytes=198),
    "convnext_base": Backbone("ConvNeXt, 88 million parameters", 296, megabytes=350),
    "convnext_large": Backbone("ConvNeXt, 196 million parameters, best model in the course report", 296, megabytes=785),
    "convnext_xlarge": Backbone("ConvNeXt, 349 million parameters", 296, megabytes=1393),
    "efficientnet_v2_b0": Backbone("EfficientNetV2B0, 6 million parameters", 271, megabytes=24),
    "mobilenet": Backbone("MobileNet, 3 million parameters", 87, megabytes=17),
    "mobilenet_v2": Backbone("MobileNetV2, 2 million parameters", 155, megabytes=9),
    "resnet50": Backbone("ResNet50, 24 million parameters", 176, megabytes=95),
    "cnn_small": Backbone("CNN with three convolutions, 110,000 parameters, trained from scratch", 14, 16),
    "cnn_medium": Backbone("CNN with four convolutions, 460,000 parameters, trained from scratch", 21, 16),
    "cnn_large": Backbone("CNN with ten convolutions, 5 million parameters, trained from scratch", 40),
    "xception": Backbone("Xception, 21 million parameters", 133, 71, megabytes=84),
    "autoencoder": _detector("convolutional autoencoder, scored by reconstruction error"),
    "autoencoder_redness": _detector("convolutional autoencoder, scored by a color cue"),
    "gan": _detector("GAN with BigGAN blocks and the encoder and score of f-AnoGAN"),
    "gan_redness": _detector("GAN, scored by a color cue and discriminator features"),
}

# The keys of params.yaml that `build_model` accepts.
BUILD_PARAMS = (
    *("backbone", "image_size", "dropout", "dropout_at", "weights", "weights_sha256", "freeze_depth"),
    *("freeze_normalization", "head_initializer", "precision", "rematerialize", "seed"),
)


SIZES = (128, 160)  # recommended image sizes; above 160 pixels, the gain is not worth the time (docs/backbones.md)


def recommended_runs(images: int, gpu: bool) -> list[str]:
    """Return the commands to run first, in order, for a data set of `images` images on a CPU or a GPU."""
    if images < 1000 or not gpu:
        return ["leaf run probe", "leaf run transfer"]
    tiny = " -S backbone=convnext_tiny -S weights=timm/convnext_tiny.in12k_ft_in1k" if images >= 10_000 else ""
    return ["leaf run probe_convnext", f"leaf run transfer_convnext{tiny}"]


def recommended_size(side: int, image_size: int) -> int | None:
    """Return the largest recommended size above `image_size` and up to `side`, the side of the originals, or None."""
    return next((size for size in reversed(SIZES) if image_size < size <= side), None)


def find(name: str) -> Backbone:
    """Return the backbone called `name`; if there is none, raise LeafError and suggest the closest name."""
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, 1)
        valid = f"did you mean {near[0]}?" if near else f"valid: {', '.join(BACKBONES)}"
        raise LeafError(f"backbone: {name!r} is unknown; {valid}")
    return BACKBONES[name]


def is_detector(name: str) -> bool:
    """Return whether the backbone `name` is an anomaly detector."""
    return find(name).detector


# parameter: the only value that detectors support
_DETECTOR_VALUES = {
    "weights": "random",
    "freeze_depth": 0,
    "freeze_normalization": False,
    "head_initializer": "glorot_uniform",
    "dropout_at": "input",
    "optimizer": "adam",
    "weight_decay": 0,
    "label_smoothing": 0,
    "weight_averaging": 0,
    "micro_batch": 0,
    "frozen_epochs": 0,
    "distribution": "none",
    "augmentation.background": "keep",
}


def check(params: Any, classes: int) -> None:
    """Raise LeafError if the backbone does not support the parameters or the number of classes.

    `params` must have the parameters in `BUILD_PARAMS`; training parameters are checked only if present.
    """
    name, kind, size, weights = params.backbone, find(params.backbone), params.image_size, params.weights
    if size < kind.minimum:
        raise LeafError(f"image_size: {size}; valid: at least {kind.minimum} for {name}")
    if size % kind.step:
        raise LeafError(f"image_size: {size}; valid: a multiple of {kind.step} for {name}")
    if kind.detector:
        if classes != 2:
            raise LeafError(f"backbone: {name} is a detector for two classes, not {classes}. Use a classifier.")
        for key, valid in _DETECTOR_VALUES.items():
            with suppress(AttributeError):  # `build_model` has no training parameters
                if (value := attrgetter(key)(params)) != valid:
                    raise LeafError(f"{key}: {str(value).lower()}; valid: {str(valid).lower()} for {name}, a detector")
    elif params.freeze_depth != "all" and params.freeze_depth > kind.operations:
        raise LeafError(f"freeze_depth: {params.freeze_depth}; valid: 0 to {kind.operations} for {name}, or all")
    if weights == "imagenet" and not kind.megabytes and name not in VARIANTS:
        raise LeafError(f"weights: imagenet: no weights are published for {name}; valid: random, or a weights file")
    if weights.startswith(TIMM) or Path(weights).suffix == ".safetensors":
        convnext_variant(name)
    if is_weights_file(weights) and Path(weights).suffix not in WEIGHTS_SUFFIXES:
        raise LeafError(f"weights: {weights}: unsupported file type; valid: {', '.join(WEIGHTS_SUFFIXES)}")


def convnext_variant(name: str) -> Variant:
    """Return the architecture of a backbone that can load timm checkpoints; raise LeafError for any other."""
    variants = VARIANTS | KERAS_VARIANTS
    if name not in variants:
        raise LeafError(f"weights: timm weights are not supported for {name}; valid backbones: {', '.join(variants)}")
    return variants[name]


def is_weights_file(weights: str) -> bool:
    """Return whether `weights` names a file rather than `random`, `imagenet` or a timm checkpoint."""
    return weights not in ("random", "imagenet") and not weights.startswith(TIMM)
