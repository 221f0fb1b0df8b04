"""Transfer learning: pretrained weights for the backbone of a classifier, and freezing its first operations."""

from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np
from keras import applications, layers

from leaf import store
from leaf.errors import LeafError
from leaf.models import from_scratch as scratch
from leaf.models.layers import CaffePreprocessing
from leaf.models.saving import check_arrays, load_model

# A classifier's own operations around the backbone. Those of keras.applications count their input as the first.
_AROUND = ("dropout", "preprocessing", "batch_normalization", "dense")

_APPLICATIONS = {
    "convnext_tiny": applications.ConvNeXtTiny,
    "convnext_small": applications.ConvNeXtSmall,
    "convnext_base": applications.ConvNeXtBase,
    "convnext_large": applications.ConvNeXtLarge,
    "convnext_xlarge": applications.ConvNeXtXLarge,
    "efficientnet_v2_b0": applications.EfficientNetV2B0,
    "mobilenet": applications.MobileNet,
    "mobilenet_v2": applications.MobileNetV2,
    "resnet50": applications.ResNet50,
    "xception": applications.Xception,
}
_OUR_OWN = {
    "convnext_atto": scratch.convnext_atto,
    "cnn_small": scratch.cnn_small,
    "cnn_medium": scratch.cnn_medium,
    "cnn_large": scratch.cnn_large,
}


def preprocessed(backbone: str, image: Any) -> Any:
    """Turn a tensor of 0..255 into what the published weights expect, where the network does not do so itself."""
    if backbone in ("mobilenet", "mobilenet_v2", "xception"):
        return layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(image)
    return CaffePreprocessing(name="preprocessing")(image) if backbone == "resnet50" else image


def pooled_features(backbone: str, image: Any) -> Any:
    """Give the pooled features (N, D) of a preprocessed tensor (N, H, W, 3)."""
    if backbone in _OUR_OWN:
        return _OUR_OWN[backbone](image)
    return _APPLICATIONS[backbone](include_top=False, weights=None, input_tensor=image, pooling="avg").output


def load_pretrained(body: keras.Model, backbone: str, image_size: int, weights: str, sha256: str) -> None:
    """Set the weights of the network `body` (image to pooled features) to those that `weights` names.

    Args:
        body: the backbone's operations, without a head.
        backbone: its name.
        image_size: side of its images, in pixels.
        weights: `imagenet`; or a file: `.h5` as keras.applications publishes it (no top), `.weights.h5`, or a
            `.keras` file of the same backbone that `save` wrote.
        sha256: of the file, in hex.

    Raises:
        LeafError: where the file is missing, has another SHA-256 or does not fit; where the download fails.
    """
    if weights == "imagenet":
        values = _imagenet(backbone, image_size)
    else:
        _check(Path(weights), sha256)
        values = _from_file(Path(weights), backbone, image_size)
    if len(values) != len(body.weights):
        raise LeafError(f"weights: {weights}: {len(values)} arrays; {backbone} has {len(body.weights)}")
    body.set_weights([_fitting(value, own.shape, weights) for value, own in zip(values, body.weights, strict=True)])


def _fitting(value: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if value.shape != shape and value.ndim == 4:
        value = value.transpose(0, 1, 3, 2)  # a grouped Conv2D's kernel, for DepthwiseConv2D
    if value.shape != shape:
        raise LeafError(f"weights: {name}: an array of shape {value.shape} where the backbone has {tuple(shape)}")
    return value


def _check(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise LeafError(f"weights: {path}: no such file; valid: random, imagenet, or a weights file")
    found = store.sha256(path)
    if found != sha256:
        told = f"{sha256} is not its SHA-256" if sha256 else "its SHA-256 is missing"
        raise LeafError(f"weights_sha256: {told}; {path} has {found}")


def _imagenet(backbone: str, image_size: int) -> list[np.ndarray]:
    try:
        return _arrays(_APPLICATIONS[backbone](**_stock(image_size), weights="imagenet"))
    except Exception as error:
        raise LeafError(
            f"weights: imagenet: the download for {backbone} failed ({error}); try again, or give a weights file"
        ) from error


def _from_file(path: Path, backbone: str, image_size: int) -> list[np.ndarray]:
    if path.suffix == ".keras":
        model = load_model(path)
        if model.name != backbone:
            raise LeafError(f"weights: {path}: holds {model.name}; backbone is {backbone}")
        kept = {id(weight) for operation in backbone_operations(model) for weight in getattr(operation, "weights", ())}
        return [np.asarray(weight) for weight in model.weights if id(weight) in kept]
    if backbone in _APPLICATIONS:
        stock = _APPLICATIONS[backbone](**_stock(image_size), weights=None)
    else:
        image = keras.Input((image_size, image_size, 3))
        stock = keras.Model(image, pooled_features(backbone, image))
    try:
        with h5py.File(path) as arrays:
            check_arrays(path, arrays)
        stock.load_weights(path)
    except LeafError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a damaged file makes h5py or Keras raise)
        reason = " ".join(str(error).split())[:200]
        raise LeafError(f"weights: {path}: not a weights file of {backbone} without top ({reason})") from None
    return _arrays(stock)


def _stock(image_size: int) -> dict[str, object]:
    return {"include_top": False, "pooling": "avg", "input_shape": (image_size, image_size, 3)}


def _arrays(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def backbone_operations(model: keras.Model) -> list[keras.Operation]:
    """Give the backbone's operations in order, its input first, as keras.applications' network alone would have them.

    Operations, not layers: Keras 3 counts an addition of two tensors as an operation that is no layer, where Keras 2
    counted a layer; so the depths that reports of Keras 2 give hold for operations.
    """
    return [operation for operation in model.operations if operation.name not in _AROUND]


def freeze_backbone(model: keras.Model, depth: int | str, normalization: bool = False) -> None:
    """Freeze the first `depth` operations of the backbone and let all others learn; `all` freezes every one.

    A frozen BatchNormalization runs in inference mode: its moving statistics stay. `normalization` freezes those of
    the whole backbone: a network whose statistics are of other images would otherwise jump when it thaws.
    """
    operations = backbone_operations(model)
    count = len(operations) if depth == "all" else int(depth)
    for number, operation in enumerate(operations):
        if isinstance(operation, keras.layers.Layer):
            kept = normalization and isinstance(operation, keras.layers.BatchNormalization)
            operation.trainable = number >= count and not kept
