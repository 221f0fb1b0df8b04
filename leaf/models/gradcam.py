"""Compute Grad-CAM heatmaps (Selvaraju 2017, arXiv 1610.02391) and blend them with images."""

import io

import numpy as np
from PIL import Image

from leaf.models.onnx_inference import Head, Network
from leaf.models.tta import resize

HEATMAP_SIDE = 288  # minimum side of the PNG in pixels, because model inputs are too small to view
_STRIDE = 8  # minimum distance in pixels between successive shifts of an image

_INFERNO = np.array(  # RGB, from the lowest to the highest value (Smith and van der Walt 2015)
    [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], np.float64
)


def heatmaps(
    network: Network, images: np.ndarray, labels: np.ndarray | None = None, places: np.ndarray | None = None
) -> np.ndarray:
    """Compute heatmaps that show the evidence for one class compared with the other classes.

    The gradient has a closed form, because only a LayerNormalization (ConvNeXt), a BatchNormalization and a Dense layer
    follow the average pooling. Most backbones reduce a 96×96 image to a 3×3 feature map. For a finer heatmap, the image
    is shifted in steps of at least 8 pixels, and the resulting maps are shifted back and averaged. A detector's heatmap
    is its reconstruction error.

    Args:
        network: a model in ONNX Runtime or Keras.
        images: float32 (N, S, S, 3) in 0..255.
        labels: classes to explain, int (M,); default: the predicted class of each image.
        places: index of each label's image, int (M,), 0 … N − 1; default: one label per image.

    Returns:
        float32 (M, S, S) in 0..1. The maximum of each map is 1, or 0 if there is no evidence for the class.
    """
    if labels is None:
        labels = network.predict(images)[0].argmax(axis=1)
    if places is None:
        places = np.arange(len(images))
    size = images.shape[1]
    total = np.zeros((len(labels), size, size), np.float32)
    shifts = _shifts(size // network.head.side)
    for down in shifts:
        for right in shifts:
            last = network.last_map(_shift(images, down, right))[places]
            coarse = np.einsum("nhwk,nk->nhw", last, gradient(network.head, last.mean((1, 2)), labels))
            total += _shift(resize(coarse, size)[..., None], -down, -right)[..., 0]
    maps = np.maximum(total, 0)
    peak = maps.max((1, 2), keepdims=True)
    return np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)


def gradient(head: Head, mean: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the gradient (N, K) of (logit of the label − mean of the other logits) at the pooled features `mean`."""
    slope = head.slopes[labels]
    if head.epsilon is None:
        return slope
    deviation = np.sqrt(mean.var(1, keepdims=True) + head.epsilon)
    standard = (mean - mean.mean(1, keepdims=True)) / deviation
    return (slope - slope.mean(1, keepdims=True) - standard * (standard * slope).mean(1, keepdims=True)) / deviation


def _shifts(cell: int) -> list[int]:
    """Return pixel offsets that evenly cover one cell of the last feature map, centered on 0."""
    steps = max(1, cell // _STRIDE)
    return [round((step - (steps - 1) / 2) * cell / steps) for step in range(steps)]


def _shift(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Shift images (N, H, W, C) up by `down` and left by `right` pixels, repeating the border pixels."""
    rows = np.clip(np.arange(images.shape[1]) + down, 0, images.shape[1] - 1)
    columns = np.clip(np.arange(images.shape[2]) + right, 0, images.shape[2] - 1)
    return images[:, rows][:, :, columns]


def overlay(pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Blend a heatmap (h, w) in 0..1 with a grayscale copy of uint8 `pixels` (H, W, 3); high values are more opaque."""
    height, width = pixels.shape[:2]
    finite = np.nan_to_num(np.asarray(heatmap, np.float32), nan=0.0)
    smooth = Image.fromarray(finite).resize((width, height), Image.Resampling.BICUBIC)
    level = np.clip(np.asarray(smooth, np.float64), 0, 1)
    stops = np.linspace(0, 1, len(_INFERNO))
    color = np.stack([np.interp(level, stops, _INFERNO[:, channel]) for channel in range(3)], axis=-1)
    opacity = (0.35 + 0.4 * level)[..., None]
    gray = pixels.astype(np.float64).mean(-1, keepdims=True)
    return np.clip(gray * (1 - opacity) + color * opacity, 0, 255).astype(np.uint8)


def heatmap_png(pixels: np.ndarray, heatmap: np.ndarray) -> bytes:
    """Return a PNG of the `overlay` of a heatmap (h, w) and `pixels` (S, S, 3), enlarged by an integer factor."""
    scale = max(1, -(-HEATMAP_SIDE // len(pixels)))
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    enlarged = Image.fromarray(np.asarray(pixels, np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    Image.fromarray(overlay(np.asarray(enlarged), heatmap)).save(file, "PNG")
    return file.getvalue()
