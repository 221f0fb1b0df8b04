"""Estimate the mask of a leaf with GrabCut, to augment images that have no mask."""

import numpy as np

FULL = 0.95  # if the leaf covers at least this fraction of the image, the background is not used
_EDGE = 0.05  # width of the border assumed to be background, as a fraction of the side


def estimate_mask(image: np.ndarray) -> np.ndarray:
    """Estimate the leaf's mask, bool (H,W), in an image (H,W,3) in 0..255 with GrabCut (Rother 2004).

    The mask is all false if the leaf covers at most 5% of the image or at least `FULL`.
    """
    import cv2

    pixels = np.ascontiguousarray(np.rint(image).astype(np.uint8)[..., ::-1])
    wide = max(1, round(_EDGE * len(image)))
    found = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    found[wide:-wide, wide:-wide] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)  # seeds GrabCut's k-means; OpenCV has one generator per thread
    cv2.grabCut(pixels, found, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    leaf = found == cv2.GC_PR_FGD
    return leaf if 0.05 < leaf.mean() < FULL else np.zeros_like(leaf)
