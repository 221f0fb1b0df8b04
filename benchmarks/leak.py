"""Measure the effect of leaked copies on simple learners with frozen features, as `leaf leak` does.

    python benchmarks/leak.py ../shared/data

The features come from MobileNetV2 with ImageNet weights. There are five folds, with five repeats for the nearest
neighbor and two for logistic regression.
"""

import os
from pathlib import Path

from images import WEIGHTS
from runs import ROOT, keep_table, table_parser

from leaf.evaluate.leakage import frozen_leak
from leaf.store import sha256

REPEATS = {"neighbour": 5, "logistic": 2}


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets and MobileNetV2's weights")
    parser.add_argument("--sets", nargs="+", default=["leaves_by_plant", "leaves_by_disease", "leaves_1041.npz"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224])
    parser.add_argument("--learners", nargs="+", choices=REPEATS, default=list(REPEATS))
    options = parser.parse_args()
    data, rows = options.data.resolve(), []
    os.chdir(ROOT)  # its data/overrides.csv is empty
    weights = [f"weights={data / WEIGHTS}", f"weights_sha256={sha256(data / WEIGHTS)}", "backbone=mobilenet_v2"]
    for name in options.sets:
        for size in options.sizes:
            if name.endswith(".npz") and size != 96:  # the images in the file are 96×96
                continue
            for learner in options.learners:
                settings = [f"dataset={data / name}", "classes=auto", f"image_size={size}", *weights]
                leak, _ = frozen_leak(None, settings, learner, REPEATS[learner])
                title = f"{Path(name).stem}, {leak.images[0]} images, {leak.groups} groups"
                points = [100 * value for value in (leak.difference, leak.low, leak.high)]
                cells = [f"{leak.leaky:.3f}", f"{leak.honest:.3f}", "{:+.1f} ({:+.1f} to {:+.1f})".format(*points)]
                rows.append([title, learner, str(size), *cells, leak.effect])
    columns = ["data set", "learner", "pixels", "leaky", "honest", "difference (95% CI)", "leakage"]
    keep_table("leak", columns, rows, options.record)


if __name__ == "__main__":
    main()
