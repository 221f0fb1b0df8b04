"""Compare image sizes by the accuracy of frozen MobileNetV2 features, in grouped folds of development sets.

    python benchmarks/resolution.py ../shared/data

All sizes use the same weights, trained at 224 pixels. Accuracy is the mean over three seeds of out-of-fold accuracy in
five grouped folds. Time includes reading, resizing and computing features; nothing is cached.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from images import WEIGHTS
from runs import keep_table, table_parser
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedGroupKFold

from leaf.audit.shortcuts import Score
from leaf.evaluate.baselines import HELD
from leaf.evaluate.linear_head import linear_head
from leaf.evaluate.statistics import proportion_interval
from leaf.ingest.ingest import ingest
from leaf.models.build import build_model
from leaf.models.prediction import extract_features
from leaf.store import read_array, sha256

DATASETS = ("leaves_by_disease", "leaves_by_plant", "leaves_1041.npz")  # 256×256, 256×256 and 96×96 pixels
OUTLIER_COPIES = 20
SIZES = (96, 128, 160, 192, 224)
COLUMNS = ["data set", "image size", "accuracy (95% CI)", "lowest class recall", "seconds per 1,000 images"]


def measure(data: Path, name: str, size: int) -> list[str]:
    """Return the table row of one data set and image size."""
    weights = data / WEIGHTS
    model = build_model("mobilenet_v2", size, weights=str(weights), weights_sha256=sha256(weights))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        extract_features(model, np.zeros((64, size, size, 3), np.uint8), 64)  # compile before timing
        start = time.perf_counter()
        index = ingest(str(data / name), path, "auto", size).index
        images = read_array(path)
        features = extract_features(model, images, 64)
        seconds = 1000 * (time.perf_counter() - start) / len(images)
    if not index["group"].any():  # leaves_1041: group copies; the most frequent images are outliers
        index["group"] = index["hash"]
    kept = (index.groupby("group")["image"].transform("size") < OUTLIER_COPIES).to_numpy()
    index, features = index[kept], features[kept]
    labels, groups = index["label"].to_numpy(), pd.factorize(index["group"].astype(str))[0]
    predicted = np.stack([_out_of_fold(features, labels, groups, seed) for seed in range(3)])
    right = predicted == labels
    accuracy = Score(right.mean(), *proportion_interval(right, groups))
    recall = np.mean([recall_score(labels, each, average=None) for each in predicted], axis=0).min()
    return [f"{name}, {len(labels):,}", str(size), str(accuracy), f"{recall:.3f}", f"{seconds:.1f}"]


def _out_of_fold(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> Any:
    predicted = np.empty_like(labels)
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(features, labels, groups):
        predicted[test] = linear_head(features[train], labels[train], strength=HELD).predict(features[test])
    return predicted


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets and MobileNetV2's weights")
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    rows = []
    for name in options.datasets:
        for size in options.sizes:
            rows.append(measure(options.data, name, size))
            print(*rows[-1], sep=" | ", flush=True)
    keep_table("resolution", COLUMNS, rows, options.record)


if __name__ == "__main__":
    main()
