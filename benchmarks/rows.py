"""Run every row of experiments.yaml whose weights are available, for the table in docs/experiments.md.

    python benchmarks/rows.py --dataset LEAVES.npz --weights mobilenet_v2=WEIGHTS.h5 && python docs/generate.py

A row with pretrained weights needs a weights file for its backbone; without one, the table lists it as not run.
Detectors also run on synthetic leaves with a seed that was not used to design them, and are compared with a score that
needs no network: the mean healthy image replaces every reconstruction. Running all rows takes several hours on two
cores. Arguments select rows; only the results of these rows are replaced. Test predictions are written to
benchmarks/predictions.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from runs import ROOT, draw, figures, keep_predictions, provenance, read_split_images, run_all, scored

from leaf.evaluate.statistics import auc_interval
from leaf.experiments import Experiment, parse_settings, read_experiments
from leaf.models.backbones import TIMM, is_detector
from leaf.params import keys
from leaf.store import sha256

RESULTS = Path(__file__).parent / "rows.json"
DRAWN = {"drawn.images": 1000, "drawn.seed": 7}
KEPT = ("accuracy", "accuracy_low", "accuracy_high", "roc_auc")


def settings(row: Experiment, dataset: Path, weights: dict[str, Path], over: Mapping[str, Any]) -> dict | None:
    """Return the settings of a row, or None if it needs published weights and none are given for its backbone."""
    values = {**row.set, "dataset": str(dataset.resolve()), **over}
    if values.get("weights") == "imagenet" or values.get("weights", "").startswith(TIMM):
        file = weights.get(values["backbone"])
        if file is None:
            return None
        values |= {"weights": str(file.resolve()), "weights_sha256": sha256(file)}
    return values


def without_network(folder: Path, redness: bool) -> float:
    """Return the ROC AUC of a detector's score if the mean healthy image replaces every reconstruction."""
    from leaf.models.autoencoder import ReconstructionScore

    images, decisions, splits = read_split_images(folder)
    labels, train, test = decisions["label"], splits["train"], splits["test"]
    mean = images[train[labels.loc[train] == 0]].mean(axis=0, dtype=np.float64)
    scores = ReconstructionScore(redness=redness)(((images[test] - mean) / 127.5).astype(np.float32))
    return auc_interval(labels.loc[test].to_numpy(), np.asarray(scores)[:, 0])[0]


def kept(folder: Path) -> dict[str, Any]:
    """Return the results of a finished run for the table."""
    metrics = figures(folder)
    scores = json.loads((folder / "data/scored/scores.json").read_text(encoding="utf-8"))["splits"]["test"]
    return {
        **{key: metrics["test"][key] for key in KEPT},
        "roc_auc_low": scores["roc_auc_low"],
        "roc_auc_high": scores["roc_auc_high"],
        "images": scores["images"],
        "validation_accuracy": metrics["validation"]["accuracy"],
        "histogram_accuracy": metrics["baseline"]["histogram_accuracy"],
        "best_epoch": metrics["best_epoch"],
        "epochs": metrics["epochs"],
    }


def backbone(values: Mapping[str, Any]) -> str:
    """Return the backbone in the settings of a row."""
    return str(values.get("backbone", keys()["backbone"]["default"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="rows to run (default: all)")
    parser.add_argument("--dataset", type=Path, required=True, help="an .npz file or a folder")
    parser.add_argument("--weights", action="append", default=[], metavar="BACKBONE=FILE", help="ImageNet weights")
    parser.add_argument("--work", type=Path, default=Path("build/rows"), help="folder of the runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of every row")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args()
    weights = {name: Path(file) for name, _, file in (text.partition("=") for text in options.weights)}
    over = parse_settings(options.set)
    rows = read_experiments(ROOT / "experiments.yaml")
    chosen = options.rows or list(rows)
    jobs: list[tuple[str, str, dict[str, Any]]] = []
    for name in chosen:
        values = settings(rows[name], options.dataset, weights, over)
        if values is None:
            continue
        jobs.append((name, options.dataset.name, values))
        if is_detector(backbone(values)):
            drawn = draw(options.work, {**DRAWN, **{k: v for k, v in over.items() if k.startswith("drawn.")}})
            jobs.append((name, "drawn leaves", values | {"dataset": str(drawn)}))
    folders = run_all([values for _, _, values in jobs], options.work)
    measured_by, recorded = provenance(), options.results == RESULTS
    results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else []
    new: list[dict[str, Any]] = []
    for (name, dataset, values), folder in zip(jobs, folders, strict=True):
        row = {"row": name, "dataset": dataset, "weights": "weights" in values, **kept(folder)}
        row["predictions"] = keep_predictions(f"{dataset} {name}", {name: scored(folder)}) if recorded else ""
        if is_detector(backbone(values)):
            row["without_network"] = without_network(folder, backbone(values).endswith("redness"))
        new.append(row | measured_by)
    replaced = {(row["row"], row["dataset"]) for row in new}
    results = [row for row in results if (row["row"], row["dataset"]) not in replaced and row["row"] in rows] + new
    results.sort(key=lambda row: (list(rows).index(row["row"]), row["dataset"]))
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for row in new:
        print(f"{row['row']:22} {row['dataset']:18} accuracy {row['accuracy']:.3f}, ROC AUC {row['roc_auc']:.3f}")


if __name__ == "__main__":
    main()
