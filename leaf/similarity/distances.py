"""Mean squared errors between images, exact, one image at a time out of the memory map.

The unit is grey levels squared: 0 for equal images, 65025 between black and white. OpenCV's norm adds the squares
in one pass without a float copy of the images: about a tenth of the time of the same sum in numpy.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

_ROUNDING = 1e-5  # of bounds in float32, as a share of the largest square


def to_reference(images: np.ndarray, rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean squared error of the images in `rows` (K,) to one `reference` (H,W,3) of their dtype: float64 (K,)."""
    plain = np.asarray(images)  # indexing a memmap costs more than the distance itself
    exact = plain.dtype == np.uint8
    sums = np.fromiter((cv2.norm(plain[i], reference, cv2.NORM_L2SQR) for i in rows), np.float64, len(rows))
    return _mean(sums, exact, reference.size)


def to_references(
    images: np.ndarray,
    rows: np.ndarray,
    small: np.ndarray,
    references: Sequence[np.ndarray],
    within: float,
    further: int,
) -> Iterator[np.ndarray]:
    """`to_reference` of each of `references`, but infinite for images that stand behind all that are wanted.

    Wanted are the distances up to `within` and so many `further` ones. `small` are the thumbnails of `rows`, which
    bound the distances from below: most images of a large set are never looked at.
    """
    flat = small.reshape(len(small), -1)
    one = np.zeros(1, np.int64)
    small_references = [thumbnails(reference[None], one).reshape(1, -1) for reference in references]
    heads = np.concatenate([np.empty((0, flat.shape[1]), np.float32), *small_references])
    squares, others = (np.einsum("ij,ij->i", each, each) for each in (flat, heads))
    rounding = _ROUNDING * max(squares.max(initial=0), others.max(initial=0))
    bounds = squares - 2 * (heads @ flat.T) + others[:, None] - rounding
    for bound, reference in zip(bounds, references, strict=True):
        distance = np.full(len(rows), np.inf)
        count = int((bound <= within).sum()) + further
        while True:
            beyond = np.partition(bound, count)[count] if count < len(rows) else np.inf
            new = np.flatnonzero((bound < beyond) & np.isinf(distance))
            distance[new] = to_reference(images, rows[new], reference)
            # What is not known yet stands at `beyond` or behind it.
            if count >= len(rows) or (distance < beyond).sum() >= (distance <= within).sum() + further:
                break
            count += count // 2 + 1
        distance[distance >= beyond] = np.inf
        yield distance


def of_pairs(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Mean squared error of each pair of rows: int64 (K,2) → float64 (K,)."""
    plain = np.asarray(images)
    exact = plain.dtype == np.uint8
    sums = np.fromiter((cv2.norm(plain[i], plain[j], cv2.NORM_L2SQR) for i, j in pairs), np.float64, len(pairs))
    return _mean(sums, exact, int(np.prod(plain.shape[1:])))


def _mean(sums: np.ndarray, exact: bool, size: int) -> np.ndarray:
    # OpenCV squares the root of the sum: of whole numbers, rounding gives back the sum itself.
    return (np.rint(sums) if exact else sums) / size


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
    turned = np.ascontiguousarray(apply(symmetry, small)).reshape(len(small), -1)
    return turned @ axes.astype(np.float32)


SYMMETRIES = (
    "none",
    "turn_90",
    "turn_180",
    "turn_270",
    "mirror",
    "mirror_turn_90",
    "mirror_turn_180",
    "mirror_turn_270",
)


def apply(name: str, images: np.ndarray) -> np.ndarray:
    """Images (…,S,S,3), mirrored left to right and then turned anticlockwise, as `name` says."""
    if "mirror" in name:
        images = images[..., ::-1, :]
    turns = int(name.rpartition("_")[2]) // 90 if "turn" in name else 0
    return np.rot90(images, turns, axes=(-3, -2))
