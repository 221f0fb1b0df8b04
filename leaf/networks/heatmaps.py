"""Heat maps: where in an image a network saw the class that it predicts."""

import keras
import numpy as np

from leaf.networks.detector import is_detector_model
from leaf.networks.prediction import submodel
from leaf.networks.transfer import backbone_operations

_STRIDE = 8  # pixels between the shifted copies whose coarse maps make one fine map


def heatmaps(
    model: keras.Model, images: np.ndarray, shown: np.ndarray | None = None, batch_size: int = 64
) -> np.ndarray:
    """Show for each image where the network saw a class rather than the others.

    Grad-CAM (Selvaraju 2017, arXiv 1610.02391), its gradient in closed form, so on any Keras backend: behind the
    average pooling there are only a LayerNormalization (ConvNeXt's), the BatchNormalization and the Dense layer. The
    last map is coarse (3×3 of a 96×96 image at most backbones), so the image is also shown shifted by multiples of
    8 pixels; the maps are shifted back and averaged.

    Args:
        model: from `build` or `load`. Of a detector the map is its reconstruction error.
        images: (N, H, W, 3), uint8 or float, 0..255.
        shown: the label of each image's class, int (N,); the likeliest unless given.
        batch_size: images at once.

    Returns:
        float32 (N, H, W), 0 to 1; the largest value of an image is 1, or all are 0 where nothing was seen of the class.
    """
    parts = [
        _batch(
            model,
            np.asarray(images[start : start + batch_size], np.float32),
            None if shown is None else shown[start : start + batch_size],
        )
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate([np.zeros((0, *images.shape[1:3]), np.float32), *parts])


def _batch(model: keras.Model, images: np.ndarray, shown: np.ndarray | None) -> np.ndarray:
    if is_detector_model(model):
        return _normalized(_error_map(model, images))
    size = images.shape[1:3]
    inner = submodel(model, "map", lambda: [_pool(model).input, model.output])
    labels = np.asarray(model.predict_on_batch(images)).argmax(axis=1) if shown is None else shown
    total = np.zeros(images.shape[:3], np.float32)
    shifts = _shifts(size[0] // inner.outputs[0].shape[1])
    for down in shifts:
        for right in shifts:
            last = np.asarray(inner.predict_on_batch(_shifted(images, down, right))[0], np.float32)
            coarse = np.einsum("nhwc,nc->nhw", last, _gradient(model, last.mean((1, 2)), labels))
            fine = keras.ops.convert_to_numpy(keras.ops.image.resize(coarse[..., None], size))
            total += _shifted(fine, -down, -right)[..., 0]
    return _normalized(np.maximum(total, 0).astype(np.float32))


def _normalized(maps: np.ndarray) -> np.ndarray:
    """Divide each map by its largest value."""
    peak = maps.max((1, 2), keepdims=True)
    return np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)


def _error_map(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a detector's score counts at each place, (N, H, W)."""
    inner = submodel(model, "residual", lambda: model.get_layer("residual").output)
    residual = np.asarray(inner.predict_on_batch(images), np.float32)
    return keras.ops.convert_to_numpy(model.get_layer("score").errors(residual))


def _shifts(cell: int) -> list[int]:
    """Offsets in pixels, evenly over one cell of the last map, around 0."""
    steps = max(1, cell // _STRIDE)
    return [round((step - (steps - 1) / 2) * cell / steps) for step in range(steps)]


def _shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Give images (N, H, W, C) moved up by `down` and left by `right` pixels, the border repeated."""
    rows = np.clip(np.arange(images.shape[1]) + down, 0, images.shape[1] - 1)
    columns = np.clip(np.arange(images.shape[2]) + right, 0, images.shape[2] - 1)
    return images[:, rows][:, :, columns]


def _pool(model: keras.Model) -> keras.layers.Layer:
    pools = [
        operation
        for operation in backbone_operations(model)
        if isinstance(operation, keras.layers.GlobalAveragePooling2D)
    ]
    return pools[-1]


def _gradient(model: keras.Model, mean: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Differentiate (a label's logit − the others' mean) by the last map's average `mean` (N, C): float (N, C)."""
    head = model.get_layer("batch_normalization")
    gamma, _, _, variance = (keras.ops.convert_to_numpy(weight) for weight in (*head.weights,))
    kernel = keras.ops.convert_to_numpy(model.get_layer("dense").kernel)
    others = (kernel.sum(axis=1, keepdims=True) - kernel) / (kernel.shape[1] - 1)
    slope = gamma / np.sqrt(variance + head.epsilon) * (kernel - others).T[labels]
    last = backbone_operations(model)[-1]
    if not isinstance(last, keras.layers.LayerNormalization):
        return slope
    slope = slope * keras.ops.convert_to_numpy(last.gamma)
    deviation = np.sqrt(mean.var(1, keepdims=True) + last.epsilon)
    standard = (mean - mean.mean(1, keepdims=True)) / deviation
    return (slope - slope.mean(1, keepdims=True) - standard * (standard * slope).mean(1, keepdims=True)) / deviation
