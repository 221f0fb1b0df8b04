"""Measure the time per image of the clean stage as the data set grows, relative to the smallest data set.

The images are random crops, rotations and tints of synthetic leaves at 32×32; 3% are copies of other images,
brightened by one gray level. The near duplicates found in a sample are checked against a brute-force search over all
pairs in the sample. `same_photo` is off, because its time depends on the number of similar pairs. Memory is the
additional peak memory of a call.
"""

import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from images import clean_images, image_index
from measure import arguments, detail, peak_memory, report, row

from leaf.clean import distances, near_duplicates
from leaf.store import new_array, read_array
from leaf.synthesize import draw_leaf

SIZES = {"tiny": (200, 400), "bench": (5_000, 20_000, 200_000), "full": (5_000, 20_000, 200_000, 500_000)}
PHOTOGRAPHS, CROPS = 600, 24  # number of source images, and of different crops per source image
_BLOCK = 4096  # images per block
SIDE, SHARE, SAMPLE, THRESHOLD = 32, 0.03, 1500, 150.0


def variants(path: Path, count: int, side: int = SIDE) -> None:
    """Write `count` images (crops, rotations, tints and copies) as uint8 (count, side, side, 3)."""
    random = np.random.default_rng(3)
    parts = []
    for number in range(PHOTOGRAPHS):
        whole = draw_leaf(np.random.default_rng([9, number]), 2 * side, number % 2 == 0)
        for _ in range(CROPS):
            cut = int(random.integers(len(whole) // 2, len(whole)))
            top, left = random.integers(0, len(whole) - cut + 1, 2)
            part = whole[top : top + cut, left : left + cut]
            parts.append(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA))
    crops = np.stack(parts)
    with new_array(path, (count, side, side, 3), np.uint8) as out:
        for start in range(0, count, _BLOCK):
            block = out[start : start + _BLOCK]
            tint = random.uniform(0.8, 1.25, (len(block), 1, 1, 3)) * random.uniform(0.7, 1.3, (len(block), 1, 1, 1))
            chosen = crops[random.integers(len(crops), size=len(block))] * tint.astype(np.float32)
            turns = random.integers(4, size=len(block))
            for turn in range(4):
                chosen[turns == turn] = np.rot90(chosen[turns == turn], turn, (1, 2))
            block[:] = np.clip(chosen, 0, 255)
            copies = np.flatnonzero(random.random(len(block)) < SHARE)
            sources = random.integers(start + len(block), size=len(copies))
            block[copies] = np.clip(out[sources].astype(np.int16) + 1, 0, 255)


def check(images: np.ndarray) -> None:
    """Exit if `near_pairs` misses a copy in a sample, or returns a pair with an error of THRESHOLD or more."""
    rows = np.arange(min(SAMPLE, len(images)))
    found = near_duplicates.near_pairs(images, rows, distances.block_means(images, rows), THRESHOLD)
    flat = np.asarray(images[rows]).reshape(len(rows), -1).astype(np.float64)  # exact, because all values are integers
    squares = (flat**2).sum(axis=1)
    mse = (squares[:, None] + squares - 2 * flat @ flat.T) / flat.shape[1]
    upper = np.triu(np.ones_like(mse, bool), 1)
    pairs = set(found[["image", "other"]].itertuples(index=False, name=None))
    copies, near = (set(map(tuple, np.argwhere(upper & (mse < most)).tolist())) for most in (1.001, THRESHOLD))
    if missed := copies - pairs:
        raise SystemExit(f"clean_scale: {len(missed)} of {len(copies)} copies are not found")
    if wrong := pairs - near:
        raise SystemExit(f"clean_scale: {len(wrong)} of {len(pairs)} near duplicates are above the threshold")


def main() -> None:
    options = arguments(__doc__)
    counts = SIZES[options.size]
    per_image: dict[int, list[float]] = {}
    memory: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            path = Path(folder) / f"{count}.npy"
            variants(path, count)
            images = read_array(path)
            check(images)

            def run(images: np.ndarray = images) -> None:
                clean_images(images, image_index(images), same_photo=False)

            memory[count] = peak_memory(run)
            per_image[count] = []
            for _ in range(3):
                start = time.perf_counter()
                run()
                per_image[count].append((time.perf_counter() - start) / count)
            print(f"{count} images: {1000 * min(per_image[count]):.3f} ms per image, {memory[count]} MiB")
    medians = [statistics.median(per_image[count]) for count in counts]
    detail("clean_scale", {"images": counts, "seconds_per_image": medians}, options.record)
    first, last = counts[0], counts[-1]
    used = {"ours": memory[last], "other": memory[first]}
    report(row("clean_scale", per_image[last], per_image[first], "<= 1.5", used), options.record)


if __name__ == "__main__":
    main()
