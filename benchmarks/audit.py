"""What `leaf audit` finds where leaves, crops and masks are known: `probe` on all classes, and on healthy or not.

python benchmarks/audit.py --dataset leaves_by_disease --weights WEIGHTS_OF_MOBILENET_V2.h5 --masks leaf_masks

`python docs/generate.py` puts the tables into docs/honest.md.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from honest import CLASSES, arguments
from runs import keep_table, run_all

from leaf.audit.questions import audit
from leaf.audit.shortcuts import Score
from leaf.errors import one_line_errors
from leaf.report.audit import IN_FILE, IN_PIXELS
from leaf.store import read_classes, read_table

Found = Mapping[str, Any]
NETWORK = {
    "unchanged": "the images as they are",
    "frame_same": "the frame of another image of the same class",
    "frame": "the frame of an image of another class",
    "centre": "all but the frame of an image of another class",
    "background": "the background grey",
    "flagged": "flagged as unlike the training images",
    "corners_flagged": "so flagged: a corner of each, enlarged",
}


def said(score: Found) -> str:
    """A score of an audit."""
    return str(Score(*(score[key] for key in ("accuracy", "low", "high"))))


def points(score: Found) -> str:
    """A difference, in points."""
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * score[key] for key in ("accuracy", "low", "high")))


def told_by(found: list[Found]) -> list[list[str]]:
    """A row for each thing beside the leaf, and two of what the model tells, a column for each audit."""
    rows = [["the model itself, on its test images", *(said(one["model"]) for one in found)]]
    rows += [["a linear head on its features, by folds", *(said(one["linear"]) for one in found)]]
    for name, words in (IN_PIXELS | IN_FILE).items():
        if name in found[0]["shortcuts"]:
            scores = [one["shortcuts"][name] for one in found]
            known = f", of {scores[0]['images']}" if scores[0]["images"] < found[0]["images"] else ""
            rows.append([words + known, *(said(one) + ("" if one["alarm"] else ", no alarm") for one in scores)])
    return [*rows, ["always the largest class", *(f"{one['shortcuts']['majority']['accuracy']:.3f}" for one in found)]]


def network(found: list[Found]) -> list[list[str]]:
    """What the network says of changed images, a column for each audit."""
    networks = [one["network"] for one in found]
    rows = [[words, *(said(one[key]) for one in networks)] for key, words in NETWORK.items() if key in networks[0]]
    rows.insert(3, ["points that the frame of another class costs", *(points(one["frame_use"]) for one in networks)])
    if "leaf" in networks[0]["evidence"]:
        parts = [[f"{one['evidence'][key]:.2f}" for one in networks] for key in ("leaf", "leaf_area")]
        rows += [["heat maps: share on the leaf", *parts[0]], ["the leaf's share of the area", *parts[1]]]
    return rows


def flagged(flags: Found) -> list[float]:
    """The area under the ROC of the three flags, and what the product's catches."""
    each = [flags["auroc"], flags["others"]["neighbours"], flags["others"]["energy"], flags["caught"]]
    return [one["accuracy"] for one in each]


def new_class(found: Found, folder: Path, by: str) -> list[list[str]]:
    """A row for each value of the column `by`: the mean over its classes, each left out once; one of backgrounds."""
    of = read_table(folder / "data/ingested/index.csv", ["label", by], text=[by]).groupby("label")[by].first()
    parts = defaultdict(list)
    for label, name in enumerate(read_classes(folder)):
        if name in found["new_class"]:
            parts[f"{by} {of[label]}"].append(flagged(found["new_class"][name]))
    if found.get("without_leaf"):
        parts["no leaf, the background alone"].append(flagged(found["without_leaf"]))
    return [
        [value, str(len(each)), *(f"{mean(column):.3f}" for column in zip(*each, strict=True))]
        for value, each in parts.items()
    ]


def main() -> None:
    """Run, audit, write."""
    options, common = arguments(__doc__, "probe")
    folders = run_all([common | {"classes": classes} for classes in ("auto", CLASSES)], options.work)
    found = [audit(folder) for folder in folders]
    heads = ["all classes", "healthy or unhealthy"]
    keep_table("audit_told", ["told by", *heads], told_by(found), options.record)
    keep_table("audit_network", ["the network, shown", *heads], network(found), options.record)
    left_out = [
        [f"{options.by} {value}", str(one["images"]), said(one["inside"]), said(one["outside"]), points(one["drop"])]
        for value, one in found[1]["transport"][options.by].items()
    ]
    columns = ["left out", "images", "inside, by folds", "outside", "points lost"]
    keep_table("audit_left_out", columns, left_out, options.record)
    columns = ["never learned", "classes", "Mahalanobis", "fifth neighbour", "energy", "caught"]
    keep_table("audit_new_class", columns, new_class(found[0], folders[0], options.by), options.record)


if __name__ == "__main__":
    with one_line_errors():
        main()
