"""Generate the synthetic demo data set."""

from pathlib import Path

import numpy as np

from leaf.errors import LeafError, one_line_errors
from leaf.params import read_params
from leaf.synthesize import DISEASES, draw_dataset, scaled, write_npz

OUTPUT = "data/raw/leaves.npz"


def main() -> None:
    """Read the parameters and write data/raw/leaves.npz, which has no images if `dataset` is another path."""
    params = read_params("synthesize")
    if Path(params.dataset) != Path(OUTPUT):  # DVC requires the output; its run cache keeps the generated images
        size = params.drawn.size
        write_npz(OUTPUT, np.empty((0, size, size, 3), np.uint8), [])
        print(f"dataset is {params.dataset}: no images are generated")
        return
    counts = scaled(params.drawn.images)
    names, diseases = kinds(params.classes if isinstance(params.classes, list) else ["healthy", "unhealthy"])
    images, labels = draw_dataset(counts, params.drawn.size, params.drawn.seed, diseases)
    write_npz(OUTPUT, images, [names[label] for label in labels])
    print(
        f"{counts.images} images in {OUTPUT}: {counts.healthy} {names[0]} and {counts.unhealthy} "
        f"{', '.join(names[1:])} leaves, {counts.healthy_duplicates + counts.unhealthy_duplicates} exact "
        f"copies, and two cartoons {counts.copies} times each"
    )


def kinds(classes: list[str]) -> tuple[list[str], list[str]]:
    """Return the class names, healthy first, and the disease of each other class, or "" for any disease.

    Raises:
        LeafError: if there are more than two classes, unless they are healthy and names in `DISEASES`.
    """
    sick = [name for name in classes if name != "healthy"]
    if len(sick) < len(classes) and set(sick) <= set(DISEASES):
        return ["healthy", *sick], sick
    if len(classes) == 2:
        return classes, [""]
    raise LeafError(
        f"classes: {', '.join(classes)}: not in the demo data set. Use healthy and any of {', '.join(DISEASES)}, or "
        "any two names. For your own images, set `dataset`."
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
