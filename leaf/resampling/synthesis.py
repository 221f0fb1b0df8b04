"""Make the planned images, a block at a time, straight into their file."""

import numpy as np
import pandas as pd

_BLOCK_BYTES = 16 << 20  # of float64 working space


def synthesize(images: np.ndarray, plan: pd.DataFrame, out: np.ndarray) -> None:
    """Write parent + weight × (neighbour − parent) for every row of `plan` into `out`.

    `images`: (N, H, W, 3) uint8 or float32. `plan`: `parent,neighbour,weight`, rows of `images`. `out`: (len(plan), H,
    W, 3) of the dtype of `images`; uint8 is rounded, and between two images nothing leaves 0..255. The arithmetic is
    floating point throughout: in uint8 the difference would wrap round without a word.
    """
    parents, neighbours = plan["parent"].to_numpy(), plan["neighbour"].to_numpy()
    weights = plan["weight"].to_numpy(np.float64)
    block = max(1, _BLOCK_BYTES // (8 * int(np.prod(images.shape[1:]))))
    for start in range(0, len(plan), block):
        rows = slice(start, start + block)
        origin = images[parents[rows]].astype(np.float32)
        mixed = (images[neighbours[rows]].astype(np.float32) - origin) * weights[rows, None, None, None]
        mixed += origin
        if out.dtype == np.uint8:
            np.rint(mixed, out=mixed)
        out[rows] = mixed
