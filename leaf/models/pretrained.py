"""Load pretrained weights into a backbone."""

from pathlib import Path

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np
from keras import applications, layers

from leaf.errors import LeafError
from leaf.models import backbones, convnext
from leaf.models.freezing import backbone_operations
from leaf.models.saving import check_arrays, load_model
from leaf.models.weights import check_weights_file, checkpoint_name, pinned, read_arrays

APPLICATIONS = {
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


def load_pretrained(body: keras.Model, backbone: str, image_size: int, weights: str, sha256: str) -> None:
    """Load pretrained weights into `body`, a model that maps images to pooled features.

    Args:
        body: model of `backbone`, changed in place.
        weights: one of the following: `imagenet`; for a ConvNeXt, `timm/NAME[@REVISION]` or a `.safetensors` file; a
            `.h5` file without the classification head, as published by keras.applications; a `.weights.h5` file; or a
            `.keras` file.
        sha256: expected SHA-256 of the file, in hex.

    Raises:
        LeafError: if the file is missing, has the wrong SHA-256 or shapes, or the download fails.
    """
    if name := checkpoint_name(backbone, weights):
        checkpoint = pinned(name, sha256)
        values = read_arrays(checkpoint.path, backbones.convnext_variant(backbone))
        layer = next(each for each in body.layers if isinstance(each, layers.Rescaling))
        layer.scale, layer.offset = convnext.rescaling(checkpoint.mean, checkpoint.std)
    elif weights == "imagenet":
        try:
            values = _stock(backbone, image_size, "imagenet").get_weights()
        except Exception as error:
            raise LeafError(
                f"weights: imagenet: the download for {backbone} failed ({error}). Try again, or use a weights file."
            ) from error
    else:
        check_weights_file(Path(weights), sha256)
        values = _from_file(Path(weights), body, backbone, image_size)
    if len(values) != len(body.weights):
        raise LeafError(
            f"weights: {weights}: has {len(values)} arrays, but {backbone} requires {len(body.weights)}. Use weights "
            f"for {backbone}."
        )
    for number, own in enumerate(body.weights):
        if values[number].shape != own.shape and values[number].ndim == 4:
            values[number] = values[number].transpose(0, 1, 3, 2)  # a grouped Conv2D's kernel
        if (found := values[number].shape) != own.shape:
            raise LeafError(
                f"weights: {weights}: has an array of shape {found}, expected {tuple(own.shape)}. Use weights for "
                f"{backbone}."
            )
    body.set_weights(values)


def _from_file(path: Path, body: keras.Model, backbone: str, image_size: int) -> list[np.ndarray]:
    if path.suffix == ".safetensors":
        return read_arrays(path, backbones.convnext_variant(backbone))
    if path.suffix == ".keras":
        model = load_model(path)
        if model.name != backbone:
            raise LeafError(
                f"weights: {path}: contains {model.name}, but backbone is {backbone}. Use weights for {backbone}."
            )
        kept = {id(weight) for operation in backbone_operations(model) for weight in getattr(operation, "weights", ())}
        return [np.asarray(weight) for weight in model.weights if id(weight) in kept]
    model = _stock(backbone, image_size, None) if backbone in APPLICATIONS else body
    try:
        with h5py.File(path) as arrays:
            check_arrays(path, arrays)
        model.load_weights(path)
    except LeafError:
        raise
    except Exception as error:  # noqa: BLE001 - h5py and Keras raise many types
        raise LeafError(
            f"weights: {path}: not a weights file for {backbone} without its head ({str(error)[:200]}). Use weights "
            f"for {backbone}."
        ) from None
    return model.get_weights()


def _stock(backbone: str, image_size: int, weights: str | None) -> keras.Model:
    """Return the keras.applications model, whose layers match the published weights files."""
    shape = (image_size, image_size, 3)
    return APPLICATIONS[backbone](include_top=False, pooling="avg", input_shape=shape, weights=weights)
