"""Count test images whose leaf is also in the training set, using another data set with leaf IDs.

    python benchmarks/shared_leaves.py --run RUN --leaves ../shared/data/leaves_by_plant

RUN is a folder in which `ingest`, `clean` and `split` have run. Two images count as the same photo if their mean
squared error is below NEAR. The table shows the gap between the errors below and above this limit.
"""

from pathlib import Path

import numpy as np
from images import ingest_images
from runs import keep_table, table_parser

from leaf.store import read_array, read_table

NEAR = 100.0  # mean squared error at full size, for pixel values 0..255


def nearest(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the nearest of `others` to each of `images` (N, S, S, 3), and the mean squared error."""
    flat = others.reshape(len(others), -1).astype(np.float32)
    squares = np.square(flat).sum(axis=1)
    rows, errors = np.empty(len(images), int), np.empty(len(images))
    for place, image in enumerate(images):
        one = image.ravel().astype(np.float32)
        distances = squares - 2 * (flat @ one) + one @ one
        rows[place] = distances.argmin()
        errors[place] = np.square(flat[rows[place]] - one).mean()
    return rows, errors


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--run", type=Path, default=Path(), help="a project in which the data stages have run")
    parser.add_argument("--leaves", type=Path, required=True, help="a folder with the group of each image")
    options = parser.parse_args()
    images = read_array(options.run / "data/ingested/images.npy")
    splits = read_table(options.run / "data/split/splits.csv", ["image", "split"], text=["split"])
    others, known = ingest_images(options.leaves, images.shape[1])
    rows, errors = nearest(images[splits["image"]], others)
    found = splits.assign(leaf=known.index["group"].to_numpy()[rows], error=errors).query("error < @NEAR")
    test, trained = found[found["split"] == "test"], found[found["split"] == "train"]
    again = test["leaf"].isin(trained["leaf"])
    gap = f"{found['error'].max():.0f} to {errors[errors >= NEAR].min():.0f}"
    columns = ["test images", "matched to a leaf ID", "leaf also in training", "gap in the errors"]
    counts = [str((splits["split"] == "test").sum()), str(len(test)), str(again.sum()), gap]
    keep_table("shared_leaves", columns, [counts], options.record)


if __name__ == "__main__":
    main()
