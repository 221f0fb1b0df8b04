"""Measure how many altered copies of real images `clean` and cleanvision group with their original.

    python benchmarks/copies.py ../shared/data          # needs cleanvision, see benchmarks/requirements.txt

Copies are added to the distinct images of leaves_1041.npz, leaves_by_plant and leaves_by_disease at 96×96. They are
cropped to 85–100%, shifted by up to 8 px, rotated by up to 5° (mirrored at the border), tinted by up to 10%, saved as
JPEG at quality 60 to 95, or all of these. One more kind is cropped, stretched along one axis by up to 1.3 and saved as
JPEG. A copy is found if it is in the group of its original. A grouped pair is a false alarm if its images show
different leaves. leaves_1041 has no leaf IDs, so every grouped pair that was not planted counts as a false alarm, and
precision is a lower bound.
"""

import itertools
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from images import as_jpeg, clean_images, cleanvision_sets, image_index, ingest_images, write_bitmaps
from runs import keep_table, table_parser

SIDE = 96
EACH = 60  # copies per kind


def moved(image: np.ndarray, scale: float = 1, shift: np.ndarray | float = 0, turn: float = 0) -> np.ndarray:
    """Crop `image` to `scale` of its side, shifted (pixels) and rotated (degrees), and resize the crop to full size."""
    centre = (SIDE - 1) / 2
    warp = cv2.getRotationMatrix2D((centre, centre), turn, scale)
    warp[:, 2] += shift
    return warped(image, warp)


def warped(image: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """Sample `image` at the positions that `warp` (2,3) maps its pixels to, mirrored at the border."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, warp, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REFLECT)


def tinted(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Multiply each channel by a random factor from 0.9 to 1.1."""
    return np.clip(image * random.uniform(0.9, 1.1, 3), 0, 255).astype(np.uint8)


def saved(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Encode `image` as JPEG at a random quality from 60 to 95, and decode it."""
    return as_jpeg(image, int(random.integers(60, 96)))


def stretched(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Crop one axis to 90–100%, the other by a further factor of 1.03–1.3; resize to a square and save as JPEG."""
    long = random.uniform(0.9, 1)
    shares = random.permutation([long, long / random.uniform(1.03, 1.3)])
    place = (1 - shares) * random.uniform(0, 1, 2) * (SIDE - 1)
    return saved(warped(image, np.column_stack([np.diag(shares), place])), random)


def everything(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Apply all alterations to `image`."""
    place = moved(image, random.uniform(0.85, 1), random.uniform(-8, 8, 2), random.uniform(-5, 5))
    return saved(tinted(place, random), random)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "crop": lambda image, random: moved(image, random.uniform(0.85, 1)),
    "shift": lambda image, random: moved(image, shift=random.uniform(-8, 8, 2)),
    "rotation": lambda image, random: moved(image, turn=random.uniform(-5, 5)),
    "tint": tinted,
    "JPEG": saved,
    "all at once": everything,
    "stretch": stretched,
}


def leaf_groups(images: np.ndarray) -> list[set[int]]:
    """Return the groups of `clean` with its default settings."""
    decisions = clean_images(images, image_index(images), references=[]).decisions
    return [set(members) for _, members in decisions.groupby("group")["image"] if len(members) > 1]


def cleanvision(images: np.ndarray) -> list[set[int]]:
    """Return cleanvision's sets of exact and near duplicates with its default settings."""
    with tempfile.TemporaryDirectory() as folder:
        write_bitmaps(images, Path(folder))
        return cleanvision_sets(Path(folder))


def read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct images, (N, SIDE, SIDE, 3), and their leaf IDs; without an ID, each image gets its own."""
    images, ingested = ingest_images(folder / name, SIDE)
    index = ingested.index
    rows = index.drop_duplicates("hash")["image"].to_numpy()
    leaf = index["group"].where(index["group"].ne(""), index["image"].astype(str))
    return images[rows], pd.factorize(leaf)[0][rows]


def measure(name: str, images: np.ndarray, leaf: np.ndarray, find: Callable[[np.ndarray], list[set[int]]]) -> list[str]:
    """Return a table row: the recall for each kind of copy and overall, the precision, and the false alarms."""
    random = np.random.default_rng(2023)
    each = min(EACH, len(images) // len(CHANGES))
    sources = random.permutation(len(images))[: each * len(CHANGES)]
    copies = [
        change(images[source], random)
        for change, source in zip(np.repeat([*CHANGES.values()], each), sources, strict=True)
    ]
    sets = find(np.concatenate([images, copies]))
    together = {pair for found in sets for pair in itertools.combinations(sorted(found), 2)}
    planted = [(int(source), len(images) + place) for place, source in enumerate(sources)]
    found = np.array([pair in together for pair in planted]).reshape(len(CHANGES), each).mean(axis=1)
    shown = np.concatenate([leaf, leaf[sources]])
    false = sum(shown[one] != shown[other] for one, other in together)
    right = sum(pair in together for pair in planted)
    precision = right / max(right + false, 1)
    return [name, *(f"{share:.2f}" for share in found), f"{found.mean():.3f}", f"{precision:.3f}", str(false)]


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", default=["leaves_1041.npz", "leaves_by_plant", "leaves_by_disease"])
    parser.add_argument("--images", type=int, help="use only this many images of each data set")
    options = parser.parse_args()
    finders = {"leaf": leaf_groups} | ({} if find_spec("cleanvision") is None else {"cleanvision": cleanvision})
    rows = []
    for name in options.sets:
        images, leaf = read(options.data, name)
        images, leaf = images[: options.images], leaf[: options.images]
        rows += [measure(f"{Path(name).stem}, {method}", images, leaf, find) for method, find in finders.items()]
    columns = ["data set, method", *CHANGES, "all copies", "precision", "false pairs"]
    keep_table("copies", columns, rows, options.record)


if __name__ == "__main__":
    main()
