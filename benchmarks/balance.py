"""Compare the balance stage with imbalanced-learn's SMOTE on the flattened float array.

The data set is as large as the course's: about 4,350 training images of 96×96 pixels, 1,606 of them unhealthy. Both
implementations read uint8 images from disk and write the synthetic ones. The script fails if any value differs by more
than the error of rounding to uint8. The target also requires at most half of imbalanced-learn's peak memory.
"""

import tempfile
from pathlib import Path

import numpy as np
from imblearn.over_sampling import SMOTE
from measure import alternate, arguments, peak_memory, report, row

from leaf.balance import interpolate, plan_images
from leaf.store import new_array, read_array

# (healthy, unhealthy, height and width, repeats)
SIZES = {"tiny": (60, 30, 24, 1), "bench": (2744, 1606, 96, 3), "full": (2744, 1606, 96, 9)}
SEED = 42


def write_images(path: Path, images: int, size: int) -> None:
    """Write uint8 images of soft patches and noise that differ from each other about as much as real images do."""
    random = np.random.default_rng(0)
    patch = size // 8
    with new_array(path, (images, size, size, 3), np.uint8) as out:
        for index in range(images):
            patches = random.integers(0, 256, (8, 8, 3)).repeat(patch, axis=0).repeat(patch, axis=1)
            out[index] = (patches + random.normal(0, 12, patches.shape)).clip(0, 255)


def main() -> None:
    options = arguments(__doc__)
    healthy, unhealthy, size, repeats = SIZES[options.size]
    labels = np.repeat([0, 1], [healthy, unhealthy])
    with tempfile.TemporaryDirectory() as folder:
        source, made, made_plainly = (Path(folder) / name for name in ("images.npy", "ours.npy", "other.npy"))
        write_images(source, len(labels), size)

        def ours() -> None:
            images = read_array(source)
            plan = plan_images(images, np.arange(len(labels)), labels, "smote", ["healthy", "unhealthy"], 5, SEED)
            with new_array(made, (len(plan), *images.shape[1:]), images.dtype) as out:
                interpolate(images, plan, out)

        def peer() -> None:
            images = read_array(source)
            flat = images.reshape(len(images), -1).astype(np.float32)
            balanced, _ = SMOTE(random_state=SEED).fit_resample(flat, labels)
            np.save(made_plainly, balanced[len(images) :].round().astype(np.uint8))

        memory = {"ours": peak_memory(ours), "other": peak_memory(peer)}
        times = alternate(ours, peer, repeats)
        furthest = max(
            int(np.abs(one.ravel().astype(int) - other.ravel()).max())
            for one, other in zip(read_array(made), read_array(made_plainly), strict=True)
        )
    if furthest > 1:
        raise SystemExit(
            f"balance: the images of leaf and imbalanced-learn differ by up to {furthest} gray levels; valid: at most 1"
        )
    result = row("balance", *times, ">= 2", memory)
    result["met"] = result["met"] and (options.size == "tiny" or memory["ours"] <= memory["other"] / 2)
    report(result, options.record)


if __name__ == "__main__":
    main()
