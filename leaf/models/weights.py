"""Resolve the parameter `weights`, check weights files, and download timm's ConvNeXt weights.

Importing this module does not import Keras.
"""

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from leaf import store
from leaf.errors import LeafError
from leaf.models.backbones import IMAGENET_MEAN, IMAGENET_STD, TIMM, VARIANTS, Variant, find

_NAME = re.compile(r"timm/[A-Za-z0-9][\w.-]{0,90}(@[\w.-]{1,90})?")


def checkpoint_name(backbone: str, weights: str) -> str | None:
    """Return the timm checkpoint that `weights` selects for `backbone`, or None."""
    if weights == "imagenet" and backbone in VARIANTS:
        return VARIANTS[backbone].checkpoint
    return weights if weights.startswith(TIMM) else None


def check_weights_file(path: Path, sha256: str) -> None:
    """Raise LeafError if the weights file does not exist or its SHA-256 is not `sha256`."""
    if not path.is_file():
        raise LeafError(f"weights: {path}: no such file; valid: random, imagenet, timm/NAME, or a weights file")
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
        terms = f" Licensed under {found}." if (found := restriction(checkpoint)) else ""
        source = f"https://huggingface.co/{checkpoint.partition('@')[0]} unless it is in the Hugging Face cache"
        return f"{checkpoint} for {name}: downloaded once from {source}.{terms} {offline}"
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


@dataclass(frozen=True)
class Checkpoint:
    """A downloaded weights file; `mean` and `std` normalize images in 0..1."""

    name: str
    path: Path
    revision: str
    sha256: str
    license: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def weights_record(backbone: str, weights: str) -> dict[str, str] | None:
    """Return the name, revision, SHA-256 and license of a timm checkpoint for models/run.json, or None."""
    if not (name := checkpoint_name(backbone, weights)):
        return None
    return {key: getattr(download(name), key) for key in ("name", "revision", "sha256", "license")}


@cache
def download(name: str) -> Checkpoint:
    """Download the checkpoint `timm/NAME` or `timm/NAME@REVISION` with `huggingface_hub`, which caches it.

    Raises:
        LeafError: if the name is malformed, the download fails, or config.json is damaged.
    """
    if not _NAME.fullmatch(name):
        raise LeafError(f"weights: {name}: not a checkpoint name; valid: timm/NAME or timm/NAME@REVISION")
    repository, _, revision = name.partition("@")
    if terms := restriction(repository):
        print(f"{repository}: licensed under {terms}", file=sys.stderr)
    path = _fetch(repository, "model.safetensors", revision)
    config = _fetch(repository, "config.json", revision)
    try:
        settings = json.loads(config.read_bytes()).get("pretrained_cfg", {})
        mean = tuple(map(float, settings.get("mean", IMAGENET_MEAN)))
        std = tuple(map(float, settings.get("std", IMAGENET_STD)))
        if len(mean) != 3 or len(std) != 3 or not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
            raise ValueError("mean and std must each be three numbers from 0 to 1")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise LeafError(
            f"weights: {name}: config.json is damaged ({str(error)[:200]}). Use another revision."
        ) from None
    return Checkpoint(name, path, path.parent.name, store.sha256(path), _license(repository, revision), mean, std)


def _fetch(repository: str, file: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision or None))
    except Exception as error:  # noqa: BLE001 - HTTP, cache and disk errors have no common class
        reason = " ".join(str(error).split())[:300]
        raise LeafError(
            f"weights: {repository}: downloading {file} failed ({type(error).__name__}: {reason}). "
            "Try again, or set `weights` to a local .safetensors file."
        ) from None


def _license(repository: str, revision: str) -> str:
    """Return the license from the model card, or `unknown`."""
    try:
        found = re.search(r"^license(?:_name)?:\s*(\S+)", _fetch(repository, "README.md", revision).read_text(), re.M)
    except (LeafError, OSError, ValueError):
        found = None
    return found[1] if found else "unknown"


def pinned(name: str, sha256: str) -> Checkpoint:
    """Download a checkpoint and verify its SHA-256. If `sha256` is empty, print the parameter that pins the file."""
    checkpoint = download(name)
    if not sha256:
        print(f"weights: {name}: to pin the file, set weights_sha256 to {checkpoint.sha256}", file=sys.stderr)
    elif sha256 != checkpoint.sha256:
        raise LeafError(
            f"weights_sha256: {sha256} does not match {name}. To accept the file, set weights_sha256 to "
            f"{checkpoint.sha256}"
        )
    return checkpoint


def read_arrays(path: Path, variant: Variant) -> list[np.ndarray]:
    """Return the weights in a `.safetensors` file, in the order and layout of the Keras model of `variant`.

    The classifier head is ignored.

    Raises:
        LeafError: if the file is damaged, or a tensor is missing, unexpected, or has the wrong shape or dtype.
    """
    from safetensors.numpy import load_file

    try:
        tensors = {_timm_name(name): tensor for name, tensor in load_file(path).items()}
    except Exception as error:  # noqa: BLE001 - safetensors and NumPy raise different types
        raise LeafError(
            f"weights: {path}: not a readable .safetensors file ({str(error)[:200]}). Download it again."
        ) from None
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(("head.fc.", "mask_token"))}
    expected = variant.array_shapes()
    if missing := [name for name in expected if name not in tensors]:
        raise LeafError(
            f"weights: {path}: missing tensors: {len(missing)} (first: {missing[0]}). Use weights of this backbone."
        )
    if extra := sorted(set(tensors) - set(expected)):
        raise LeafError(
            f"weights: {path}: unexpected tensors: {len(extra)} (first: {extra[0]}). Use weights of this backbone."
        )
    return [_keras_array(path, name, tensors[name], shape) for name, shape in expected.items()]


def _keras_array(path: Path, name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.dtype.kind != "f":
        raise LeafError(f"weights: {path}: {name} has dtype {value.dtype}; valid: float16 or float32")
    if not np.isfinite(value).all():
        raise LeafError(f"weights: {path}: {name} contains NaN or infinity. Use a different checkpoint.")
    original = value.shape
    if value.ndim == 4 and len(shape) == 2 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]  # 1×1 convolution
    if value.ndim == 4:
        value = value.transpose((2, 3, 0, 1) if name.endswith("conv_dw.weight") else (2, 3, 1, 0))
    elif value.ndim == 2:
        value = value.T
    if ".grn." in name:
        value = value.reshape(-1)  # in Meta's checkpoints, the shape is (1, 1, 1, C)
    if value.shape != shape:
        raise LeafError(
            f"weights: {path}: {name} has shape {original}, expected {shape} in Keras layout. Use weights for "
            "the backbone."
        )
    return np.ascontiguousarray(value, np.float32)


_META = (
    (r"downsample_layers\.0\.(\d)\.", r"stem.\1."),
    (r"downsample_layers\.(\d)\.(\d)\.", r"stages.\1.downsample.\2."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv1\.", ".mlp.fc1."),
    (r"\.pwconv2\.", ".mlp.fc2."),
    (r"\.(\d+)\.grn\.", r".\1.mlp.grn."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
    (r"grn\.gamma$", "grn.weight"),
    (r"grn\.beta$", "grn.bias"),
)


def _timm_name(name: str) -> str:
    """Convert a tensor name from Meta's original checkpoints to timm's; return other names unchanged."""
    for pattern, replacement in _META:
        name = re.sub(pattern, replacement, name)
    return name
