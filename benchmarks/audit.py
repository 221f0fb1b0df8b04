"""Audit the row `probe` on a data set with leaf IDs, crops and masks, once with all classes and once with two.

    python benchmarks/audit.py --dataset leaves_by_disease --weights WEIGHTS_OF_MOBILENET_V2.h5 --masks leaf_masks

`python docs/generate.py` writes the tables to docs/honest.md.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from honest import CLASSES, arguments
from runs import keep_table, run_all

from leaf.audit.audit import audit
from leaf.audit.shortcuts import Score
from leaf.errors import one_line_errors
from leaf.report.audit import IN_FILE, IN_PIXELS
from leaf.store import read_classes, read_table

Found = Mapping[str, Any]
NETWORK = {
    "unchanged": "unchanged images",
    "frame_same": "frame from the same class",
    "frame": "frame from another class",
    "centre": "center from another class",
    "background": "mean color as background",
    "flagged": "flagged as out-of-distribution",
    "corners_flagged": "enlarged corners flagged as out-of-distribution",
}


def formatted(score: Found) -> str:
    """Format a score."""
    return str(Score(*(score[key] for key in ("accuracy", "low", "high"))))


def points(score: Found) -> str:
    """Format a difference in percentage points."""
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * score[key] for key in ("accuracy", "low", "high")))


def shortcuts_table(result: list[Found]) -> list[list[str]]:
    """Return a table of accuracies with a row for the model and for each shortcut, and a column per audit."""
    rows = [["the model (test images)", *(formatted(one["model"]) for one in result)]]
    rows += [["linear head on its features (cross-validation)", *(formatted(one["linear"]) for one in result)]]
    for name, words in (IN_PIXELS | IN_FILE).items():
        if name in result[0]["shortcuts"]:
            scores = [one["shortcuts"][name] for one in result]
            known = f" ({scores[0]['images']} images)" if scores[0]["images"] < result[0]["images"] else ""
            rows.append([words + known, *(formatted(one) + ("" if one["alarm"] else ", no alarm") for one in scores)])
    return [*rows, ["largest class", *(f"{one['shortcuts']['majority']['accuracy']:.3f}" for one in result)]]


def network(result: list[Found]) -> list[list[str]]:
    """Return a table of accuracies with a row per alteration of the images and a column per audit."""
    networks = [one["network"] for one in result]
    rows = [[words, *(formatted(one[key]) for one in networks)] for key, words in NETWORK.items() if key in networks[0]]
    rows.insert(
        3,
        [
            "points lost: frame from another class instead of the same class",
            *(points(one["frame_use"]) for one in networks),
        ],
    )
    if "leaf" in networks[0]["evidence"]:
        parts = [[f"{one['evidence'][key]:.2f}" for one in networks] for key in ("leaf", "leaf_area")]
        rows += [
            ["share of the heatmap intensity on the leaf", *parts[0]],
            ["share of the area covered by the leaf", *parts[1]],
        ]
    return rows


def flagged(flags: Found) -> list[float]:
    """Return the AUROC of the three detectors and the share of images that `leaf predict` flags."""
    each = [flags["auroc"], flags["others"]["neighbours"], flags["others"]["energy"], flags["caught"]]
    return [one["accuracy"] for one in each]


def new_class(result: Found, folder: Path, by: str) -> list[list[str]]:
    """Return a row for each value of the column `by`, with means over its classes, and a row for backgrounds."""
    of = read_table(folder / "data/ingested/index.csv", ["label", by], text=[by]).groupby("label")[by].first()
    parts = defaultdict(list)
    for label, name in enumerate(read_classes(folder)):
        if name in result["new_class"]:
            parts[f"{by} {of[label]}"].append(flagged(result["new_class"][name]))
    if result.get("without_leaf"):
        parts["background without the leaf"].append(flagged(result["without_leaf"]))
    return [
        [value, str(len(each)), *(f"{mean(column):.3f}" for column in zip(*each, strict=True))]
        for value, each in parts.items()
    ]


def main() -> None:
    options, common = arguments(__doc__, "probe")
    folders = run_all([common | {"classes": classes} for classes in ("auto", CLASSES)], options.work)
    result = [audit(folder) for folder in folders]
    heads = ["all classes", "healthy or unhealthy"]
    keep_table("audit_told", ["predicted from", *heads], shortcuts_table(result), options.record)
    keep_table("audit_network", ["test images", *heads], network(result), options.record)
    left_out = []
    for value, one in result[1]["transport"][options.by].items():
        scores = [formatted(one["inside"]), formatted(one["outside"]), points(one["drop"])]
        left_out.append([f"{options.by} {value}", str(one["images"]), *scores])
    columns = ["left out", "images", "accuracy in cross-validation", "accuracy if left out", "points lost"]
    keep_table("audit_left_out", columns, left_out, options.record)
    columns = ["left out", "classes", "Mahalanobis", "fifth neighbor", "energy", "flagged"]
    keep_table("audit_new_class", columns, new_class(result[0], folders[0], options.by), options.record)


if __name__ == "__main__":
    with one_line_errors():
        main()
