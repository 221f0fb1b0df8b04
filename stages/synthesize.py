"""Stage synthesize: draw the leaf data set that stands in for photographs."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from leaf.drawing import draw_dataset, scaled, write_npz
from leaf.errors import one_line_errors
from leaf.params import read_params

OUTPUT = "data/raw/leaves.npz"


def main() -> None:
    """Read the parameters, draw, write data/raw/leaves.npz: without an image where `dataset` is another."""
    params = read_params("synthesize")
    if Path(params.dataset) != Path(OUTPUT):  # DVC wants the output nevertheless; its run cache keeps the drawn one
        size = params.drawn.size
        write_npz(OUTPUT, np.empty((0, size, size, 3), np.uint8), [])
        print(f"dataset is {params.dataset}: nothing is drawn")
        return
    counts = scaled(params.drawn.images)
    images, labels = draw_dataset(
        counts, params.drawn.size, params.drawn.seed, lambda numbers: tqdm(numbers, "drawing", disable=None)
    )
    classes = params.classes if isinstance(params.classes, list) else ["healthy", "unhealthy"]
    write_npz(OUTPUT, images, [classes[label] for label in labels])
    print(
        f"drew {counts.healthy} {classes[0]} and {counts.unhealthy} {classes[1]} leaves; with "
        f"{counts.healthy_duplicates + counts.unhealthy_duplicates} exact copies and 2 cartoons × {counts.copies} "
        f"{counts.images} images in {OUTPUT}"
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
