"""Small means of images that bound their mean squared error from below.

A cell's mean differs by at most the root of the cell's mean squared difference (Jensen), and a projection shortens
no vector less than to itself. So two images whose thumbnails, or leading components, lie farther apart than the root
of a threshold cannot be under that threshold: a search among the small vectors loses no pair.
"""

import cv2
import numpy as np

from leaf.similarity import symmetries

SIDE = 8
COMPONENTS = 32
_SAMPLE = 2000  # images that the components are computed from; any orthonormal basis keeps the bound


def thumbnails(images: np.ndarray, rows: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Area means of the images in `rows` on side × side cells: float32 (K, h, w, 3), scaled by 1/√(h·w·3).

    The squared Euclidean distance of two of them is at most the mean squared error of their images.
    """
    plain = np.asarray(images)
    height, width = min(side, plain.shape[1]), min(side, plain.shape[2])
    small = np.empty((len(rows), height, width, plain.shape[3]), np.float32)
    for place, row in enumerate(rows):
        cv2.resize(plain[row].astype(np.float32), (width, height), small[place], interpolation=cv2.INTER_AREA)
    small /= np.float32(np.sqrt(small[0].size)) if len(small) else np.float32(1)
    return small


def basis(small: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """An orthonormal basis of the leading principal components of thumbnails (K,h,w,3): float64 (h·w·3, components)."""
    flat = small.reshape(len(small), -1)
    step = max(1, len(flat) // _SAMPLE)
    sample = flat[::step].astype(np.float64)
    sample -= sample.mean(axis=0)
    _, vectors = np.linalg.eigh(sample.T @ sample)
    return vectors[:, ::-1][:, :components]


def project(small: np.ndarray, axes: np.ndarray, symmetry: str = "none") -> np.ndarray:
    """Thumbnails (K,h,w,3), turned by `symmetry`, on the basis `axes`: float32 (K, components)."""
    turned = np.ascontiguousarray(symmetries.apply(symmetry, small)).reshape(len(small), -1)
    return turned @ axes.astype(np.float32)
