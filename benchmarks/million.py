"""Run ingest, clean, split, balance and evaluate on a million images of 32×32: time and peak memory.

Each stage runs as under DVC, on an .npz file of crops, rotations and tints of synthetic leaves, 3% of them copies. As
in slopes.py, memory is the peak of the process's own pages and `same_photo` is off. The network is a small untrained
CNN, because the cost of `evaluate` does not depend on its accuracy. The results are in docs/performance.md; there is no
target.
"""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import yaml
from clean_scale import variants
from measure import arguments, detail
from slopes import CLASSES, disk, project, run

COUNTS = {"tiny": 600, "bench": 20_000, "full": 1_000_000}
SIDE = 32
STAGES = ("ingest", "clean", "split", "balance", "evaluate")
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


def write_npz(folder: Path, count: int) -> None:
    """Write the images and labels to one .npz file in parts."""
    path = folder / "data.npy"
    variants(path, count)
    labels = folder / "labels.npy"
    np.save(labels, np.array(CLASSES)[np.arange(count) % 5 // 3])
    with zipfile.ZipFile(folder / "images.npz", "w", allowZip64=True) as file:
        for each in (path, labels):
            file.write(each, each.name)
            each.unlink()


def main() -> None:
    """Generate the images, run the stages, and record the cost of each stage."""
    options = arguments(__doc__)
    count = COUNTS[options.size]
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_npz(folder, count)
        project(folder, SIDE)
        params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        params |= {"dataset": "images.npz", "balance": "class_weight", "backbone": "cnn_small"}
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        for stage in STAGES:
            if stage == "evaluate":
                run(["-c", UNTRAINED], folder)
            before = disk(folder)
            seconds, memory = run(["-m", f"stages.{stage}"], folder)
            found[stage] = {"seconds": seconds, "memory": memory, "disk": disk(folder) - before}
            print(f"{stage}: {seconds:.1f} s, {memory:.0f} MiB of its own memory", flush=True)
    detail("million", {"images": count, "side": SIDE, "stages": found}, options.record and options.size == "full")


if __name__ == "__main__":
    main()
