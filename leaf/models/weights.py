"""Resolve the parameter `weights` to a timm checkpoint, check weights files, and describe licenses and downloads.

Importing this module does not import Keras.
"""

import os
from pathlib import Path

from leaf import store
from leaf.errors import LeafError
from leaf.models.backbones import TIMM, VARIANTS, find


def checkpoint_name(backbone: str, weights: str) -> str | None:
    """Return the timm checkpoint that `weights` selects for `backbone`, or None."""
    if weights == "imagenet" and backbone in VARIANTS:
        return VARIANTS[backbone].checkpoint
    return weights if weights.startswith(TIMM) else None


def check_weights_file(path: Path, sha256: str) -> None:
    """Raise LeafError if the weights file does not exist or its SHA-256 is not `sha256`."""
    if not path.is_file():
        raise LeafError(f"weights: {path}: no such file; valid: random, imagenet, or a weights file")
    found = store.sha256(path)
    if found != sha256:
        problem = f"{sha256} does not match {path}" if sha256 else f"required for {path}"
        raise LeafError(f"weights_sha256: {problem}. To accept the file, set weights_sha256 to {found}")


_RESTRICTED = {
    "fcmae": "CC-BY-NC-4.0, which forbids commercial use",
    "dinov3": "the DINOv3 license, which restricts use and redistribution",
}


def restriction(checkpoint: str) -> str:
    """Return the restrictive license terms of a timm checkpoint, or an empty string."""
    return next((terms for part, terms in _RESTRICTED.items() if part in checkpoint), "")


def describe_download(name: str, weights: str, image_size: int) -> str:
    """Return one line that names the pretrained weights to download and their source, or "" for other weights."""
    offline = "Without an internet connection, set -S weights=FILE"
    if checkpoint := checkpoint_name(name, weights):
        terms = f", licensed under {found}" if (found := restriction(checkpoint)) else ""
        source = (
            f"https://huggingface.co/{checkpoint.partition('@')[0]} unless they are in the Hugging Face cache{terms}"
        )
        return f"{checkpoint} for {name}: downloaded once from {source}. {offline}"
    if weights != "imagenet":
        return ""
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    file = {"mobilenet": "mobilenet_1_0", "efficientnet_v2_b0": "efficientnetv2-b0"}.get(name, name)
    if name == "mobilenet_v2":  # one weights file per image size
        file += f"_*_{image_size if image_size in (96, 128, 160, 192) else 224}"
    if cached := sorted(folder.glob(f"{file}*_no*top.h5")):
        return f"imagenet for {name}: {cached[0]}"
    source = f"https://storage.googleapis.com/tensorflow/keras-applications to {folder}"
    return f"imagenet for {name}: {find(name).megabytes} MB, downloaded once from {source}. {offline}"
