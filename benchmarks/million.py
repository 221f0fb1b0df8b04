"""Measure the data stages and `evaluate` on a million images of 32×32, and `clean` on 200,000 images of 96×96.

Each stage runs as under DVC, on an .npz file of crops, rotations and tints of 600 synthetic leaves; 3% of the images
are copies. `clean` runs first without `same_photo` and then with it; every image has crops of the same photo, which is
the slowest case. As in slopes.py, memory is the peak private memory. The network is a small untrained CNN, because the
cost of `evaluate` does not depend on its accuracy. The results are in docs/performance.md. The target is ten minutes
and 4 GiB for `clean` with `same_photo`.
"""

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from clean_scale import variants
from measure import arguments, detail
from slopes import CLASSES, disk, run

from leaf.params import Params
from leaf.python_api import new_project

PHOTOS = "clean with `same_photo`"
STAGES = ("ingest", "clean", "split", "balance", "evaluate", PHOTOS)
LARGE = ("ingest", "clean", PHOTOS)
# (images, side, stages) of each run
RUNS = {
    "tiny": [(600, 32, STAGES)],
    "bench": [(20_000, 32, STAGES)],
    "full": [(1_000_000, 32, STAGES), (200_000, 96, LARGE)],
}
# Writes an untrained network and the other outputs of `train`.
UNTRAINED = """
import numpy
from leaf import store
from leaf.models.build import build_model_from_params
from leaf.models.saving import save_model
from leaf.params import read_params
from leaf.train.callbacks import Result
from leaf.train.run import write_run
params, classes = read_params("train"), store.read_classes()
model = build_model_from_params(params, len(classes))
save_model(model, "models/model.keras")
best = {"epoch": 1, "validation_accuracy": 0.5}
counts = {"parameters": model.count_params(), "trainable_parameters": model.count_params()}
write_run(Result([best], best, "epochs", 1), params, classes, counts, None, {})
"""


def write_npz(folder: Path, count: int, side: int) -> None:
    """Write the images and labels to one .npz file without loading all images into memory."""
    path = folder / "data.npy"
    variants(path, count, side)
    labels = folder / "labels.npy"
    np.save(labels, np.array(CLASSES)[np.arange(count) % 5 // 3])
    with zipfile.ZipFile(folder / "images.npz", "w", allowZip64=True) as file:
        for each in (path, labels):
            file.write(each, each.name)
            each.unlink()


def measure(count: int, side: int, stages: Sequence[str]) -> dict[str, Any]:
    """Generate the images, run the stages, and return the seconds, peak MiB and bytes on disk of each stage."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"dataset": "images.npz", "image_size": side, "epochs": 1}
        settings |= {"balance": "class_weight", "backbone": "cnn_small"}
        new_project(folder, Params(**settings))
        write_npz(folder, count, side)
        for stage in stages:
            new_project(folder, Params(**settings, same_photo=stage == PHOTOS))
            if stage == "evaluate":
                run(["-c", UNTRAINED], folder)
            before = disk(folder)
            seconds, memory = run(["-m", f"stages.{stage.split()[0]}"], folder)
            found[stage] = {"seconds": seconds, "memory": memory, "disk": disk(folder) - before}
            print(f"{count} images, {stage}: {seconds:.1f} s, {memory:.0f} MiB of private memory", flush=True)
    return {"images": count, "side": side, "stages": found}


def main() -> None:
    options = arguments(__doc__)
    found = [measure(*each) for each in RUNS[options.size]]
    detail("million", found, options.record and options.size == "full")


if __name__ == "__main__":
    main()
