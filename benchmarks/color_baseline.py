"""Score the color baselines on the same splits as the published results.

    python benchmarks/color_baseline.py ../shared/data

As in `evaluate`, the baselines are fitted to the training images of each fold and tuned on its validation images. No
network is trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from runs import ROOT, keep_table, prepare, read_split_images, table_parser

from leaf.audit.shortcuts import Score
from leaf.evaluate import BASELINES
from leaf.evaluate.baselines import baseline_probabilities
from leaf.evaluate.statistics import proportion_interval
from leaf.experiments import with_settings

TWO = {"healthy": ["*healthy"], "unhealthy": ["*"]}
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {  # name: data set, folds, settings
    "leaves_by_disease, healthy or unhealthy": ("leaves_by_disease", 3, {"classes": TWO}),
    "leaves_by_disease, nine classes": ("leaves_by_disease", 5, {"classes": "auto"}),
    "leaves_1041, test split": ("leaves_1041.npz", 0, {}),
}


def score(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """Return which test images each baseline classifies correctly, their groups, and the selected model."""
    images, decisions, rows = read_split_images(folder)
    labels = {name: decisions.loc[part, "label"].to_numpy() for name, part in rows.items()}
    train, validation = ((rows[name], labels[name]) for name in ("train", "validation"))
    found, model = baseline_probabilities(images, train, validation, rows["test"])
    right = {name: test.argmax(axis=1) == labels["test"] for name, (_, test) in found.items()}
    return right, decisions.loc[rows["test"], "group"].to_numpy(), model


def measure(dataset: Path, folds: int, settings: Mapping[str, Any], work: Path) -> list[str]:
    """Return the table cells of one data set: images, accuracy of each baseline, selected models."""
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    parts: list[dict[str, Any]] = [{"folds": folds, "fold": fold} for fold in range(folds)] or [{}]
    found = []
    for part in parts:
        values = with_settings(defaults, {**settings, **part, "dataset": str(dataset)}).model_dump(mode="json")
        found.append(score(prepare(work, values)))
    groups = np.concatenate([each[1] for each in found])
    cells = [str(len(groups))]
    for name in BASELINES:
        right = np.concatenate([each[0][name] for each in found])
        cells.append(str(Score(right.mean(), *proportion_interval(right, groups))))
    return [*cells, "; ".join(sorted({each[2] for each in found}))]


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("build/colors"), help="folder of the runs")
    options = parser.parse_args()
    rows = [
        [name, *measure(options.data.resolve() / dataset, folds, settings, options.work)]
        for name, (dataset, folds, settings) in CASES.items()
        if (options.data / dataset).exists()
    ]
    columns = ["data set", "test images", *BASELINES.values(), "selected models"]
    keep_table("color_baseline", columns, rows, options.record)


if __name__ == "__main__":
    main()
