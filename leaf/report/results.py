"""Report sections on training and results: learning curves, scores, baselines, calibration and source folders."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from leaf.errors import plural
from leaf.evaluate import BASELINES
from leaf.finished_run import Run
from leaf.params import keys
from leaf.report.charts import (
    Dots,
    Figure,
    Interval,
    Panel,
    Point,
    Series,
    both,
    curves,
    number,
    scores,
    share_shown,
    square,
)

FOLDERS = 24
NO_TEST = "There is no test split. The model was selected on the validation images, so its accuracy is optimistic."
LOWER = ("log_loss", "brier", "calibration_error")  # scores for which lower is better
_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "top_2_accuracy": "Top-2 accuracy",
    "top_3_accuracy": "Top-3 accuracy",
}
Block = Mapping[str, Any]
"""The scores of one split, from scores.json."""


def scored_split(scores: Mapping[str, Any]) -> tuple[str, Block]:
    """Return the name and scores of the test split, or of validation if there is no test split."""
    name = "test" if scores["splits"]["test"] else "validation"
    return name, scores["splits"][name]


def lowest_recall(run: Run, block: Block) -> tuple[float, str]:
    """Return the lowest recall and the name of its class."""
    return min((each["recall"], name) for each, name in zip(block["classes"], run.names, strict=True) if each["images"])


def interval(name: str, block: Block, kind: str = "first", key: str = "accuracy") -> Interval:
    """Return the score `key` of a block with its interval."""
    return Interval(name, block[key], block[f"{key}_low"], block[f"{key}_high"], kind)


def baselines(scores: Mapping[str, Any]) -> list[Interval]:
    """Return the accuracies of the baselines. Runs of version 0.1.0 lack the tuned color baseline."""
    found = scores["baseline"]
    return [interval(name.capitalize(), found[key], "gone") for key, name in BASELINES.items() if key in found]


def section(run: Run) -> dict[str, Any]:
    """Return the charts and tables of the results section."""
    name, block = scored_split(run.scores)
    splits = [(split, run.scores["splits"][split]) for split in dict.fromkeys((name, "validation"))]
    first, second = run.names[:2]
    return {
        "split": name,
        "block": block,
        "accuracy": _accuracy(run, splits),
        "splits": splits,
        "scores": score_rows([block for _, block in splits]),
        "by_class": _by_class(run, block),
        "worst_pairs": [
            f"{each['images']:,}\xa0{run.display(each['label'])} predicted as {run.display(each['predicted'])}"
            for each in block["worst_pairs"][:5]
        ],
        "figures": {
            "Calibration": _calibration(block),
            "ROC": _curve(
                splits,
                "roc",
                {"fpr": "false positive rate", "tpr": "true positive rate"},
                f"Recall of {second} against the share of {first} images predicted as {second}.",
            ),
            "Precision and recall": _curve(
                splits,
                "precision_recall",
                {"recall": "recall", "precision": "precision"},
                f"Precision against recall for {second}.",
            ),
        },
        "folders": _folders(run),
        "ungrouped": run.index["group"].eq("").all() and run.params["dataset"] != keys()["dataset"]["default"],
    }


Splits = Sequence[tuple[str, Block]]
"""Names and scores of the splits to show: test (if any) and validation."""

_CAPTION = "Lines show 95% confidence intervals."


def _accuracy(run: Run, splits: Splits) -> Dots:
    kinds = zip(splits, ("first", "ink"), strict=False)
    rows = [interval(f"This network, {name}", block, kind) for (name, block), kind in kinds]
    caption = f"{_CAPTION} The baselines were scored on the {splits[0][0]} images."
    return scores([*rows, *baselines(run.scores)], caption)


def score_rows(blocks: Sequence[Block], keys: Iterable[str] = _NAMES) -> list[dict[str, Any]]:
    """Return a row per score with a cell per block: the value, its interval, and whether it is the best of the row."""
    rows = []
    for key in keys:
        known = {block[key] for block in blocks if block.get(key) is not None}
        best = (min if key in LOWER else max)(known) if len(known) > 1 else None
        cells = []
        for block in blocks:
            value, low, high = (block.get(key + end) for end in ("", "_low", "_high"))
            span = "" if low is None else f"{low:.3f} to {high:.3f}"
            text = "–" if value is None else f"{value:.3f}"
            cells.append({"value": text, "span": span, "best": best is not None and value == best})
        if any(key in block for block in blocks):
            rows.append({"name": _NAMES[key] + (" (lower is better)" if key in LOWER else ""), "cells": cells})
    return rows


def _by_class(run: Run, block: Block) -> Dots:
    """Return the recall of each class, lowest first."""
    known = [(each, label) for each, label in zip(block["classes"], run.names, strict=True) if each["images"]]
    known.sort(key=lambda entry: entry[0]["recall"])
    return scores([interval(f"{label} · {each['images']:,}", each, key="recall") for each, label in known], _CAPTION)


def _curve(splits: Splits, key: str, axes: Mapping[str, str], caption: str) -> Figure | None:
    """Draw the curve `key` of each split. `axes` maps the keys of its x and y values to axis titles."""
    if key not in splits[0][1]:
        return None
    x, y = axes
    kinds = zip(splits, ("stroke-first", "stroke-muted dotted"), strict=False)
    series = [curve_series(name, block[key], axes, kind) for (name, block), kind in kinds][::-1]
    at = _rates(splits[0][1])
    points = [Point(at[x], at[y], "at the decision threshold")] if {x, y} <= at.keys() else []
    if len(series) > 1:
        caption += f" Solid: {series[-1].name}; dotted: {series[0].name}."
    if points:
        caption += " The dot marks the decision threshold."
    drawn = square(series, (axes[x], axes[y]), caption, points=points, diagonal=key == "roc")
    return Figure(drawn, None, caption)


def curve_series(name: str, curve: Mapping[str, Any], axes: Iterable[str], kind: str) -> Series:
    """Return a curve from scores.json as a line; null, used if a class has no images, becomes nan."""
    xs, ys = (np.array(curve[axis], float) for axis in axes)
    return Series(name, xs, ys, kind)


def _rates(block: Block) -> dict[str, float]:
    """Return fpr, tpr, recall and precision at the decision threshold, or {} if a class has no images."""
    (rejected, wrong), (missed, right) = block["confusion"]
    if not (rejected + wrong and missed + right):
        return {}
    recall = right / (missed + right)
    rates = {"fpr": wrong / (rejected + wrong), "tpr": recall, "recall": recall}
    return rates | ({"precision": right / (wrong + right)} if wrong + right else {})


def _calibration(block: Block) -> Figure:
    bins = [each for each in block["calibration"] if each["images"]]
    most = max(each["images"] for each in bins)
    gaps, points = [], []
    for each in bins:
        x, y = each["confidence"], each["accuracy"]
        gaps.append(Series("", (x, x), (x, y), "gap"))
        tip = f"{plural(round(each['images']), 'image')}: confidence {x:.1%}, accuracy {y:.1%}"
        points.append(Point(x, y, tip, 3 + 8 * (each["images"] / most) ** 0.5, "fill-first"))
    low = 0.5 if all(each["confidence"] >= 0.5 for each in bins) else 0.0
    caption = (
        "Each dot is a confidence bin, sized by its number of images. The dashed line is perfect calibration. "
        f"Expected calibration error: {number(block['calibration_error'])}"
    )
    if before := block.get("before_calibration"):
        caption += f"; before temperature scaling: {number(before['calibration_error'])}"
    axes = ("confidence", "accuracy")
    drawn = square(gaps, axes, f"Accuracy against confidence. {caption}.", points=points, diagonal=True, low=low)
    return Figure(drawn, None, f"{caption}.")


def _folders(run: Run) -> Dots | None:
    folders = run.scores["by_folder"]
    names = {str(entry["folder"]).rpartition("/")[2] for entry in folders}
    if len(folders) < 2 or names == set(run.classes):  # the folders are the classes, which are already shown
        return None
    folders = sorted(folders, key=lambda entry: (entry["accuracy"], str(entry["folder"])))
    rows = [
        Interval(f"{each['folder'] or '(top)'} · {each['images']:,}", each["accuracy"], each["low"], each["high"])
        for each in folders[:FOLDERS]
    ]
    return scores(rows, f"{_CAPTION} {share_shown(len(rows), len(folders), 'folders')}")


_TRAINING, _VALIDATION = ("training", "stroke-muted dotted"), ("validation", "stroke-first")
_CURVES = (  # title, start of the y axis, columns of history.csv
    ("Accuracy", None, {"accuracy": _TRAINING, "validation_accuracy": _VALIDATION}),
    ("Loss", None, {"loss": _TRAINING, "validation_loss": _VALIDATION}),
    ("Learning rate", 0.0, {"learning_rate": ("", "stroke-ink")}),
)


def column_series(history: pd.DataFrame, column: str, name: str, kind: str) -> Series:
    """Return a column of history.csv as a line."""
    return Series(name, history["epoch"].tolist(), history[column].tolist(), kind)


def training_section(run: Run) -> dict[str, Any]:
    """Return the learning curves as a figure and as a table, and facts about the training run."""
    history = run.history
    panels = [
        Panel(title, [column_series(history, column, *line) for column, line in columns.items()], floor)
        for title, floor, columns in _CURVES
    ]
    marks = _marks(run)
    lines = f"Vertical line{'s' if len(marks) > 1 else ''}: {', '.join(each for _, _, each in marks)}"
    caption = f"Solid: validation; dotted: training. {lines}."
    ends = [
        f"{entry.name} {panel.title.lower()} from {number(entry.ys[0])} to {number(entry.ys[-1])}".lstrip()
        for panel in panels
        for entry in panel.series
    ]
    words = f"Curves over {plural(len(history), 'epoch')}: {', '.join(ends)}."
    return {
        "figure": both(lambda width: curves(panels, marks, words, width), caption),
        "rows": _rows(history),
    }


def _marks(run: Run) -> list[tuple[int, str, str]]:
    """Return notable epochs in ascending order, each with a CSS class and a description."""
    last, best = int(run.history["epoch"].iloc[-1]), run.training["best_epoch"]
    phases = run.history.drop_duplicates("phase")["epoch"].tolist()
    marks = [(epoch, "phase", f"start of phase 2 (epoch {epoch})") for epoch in phases[1:2]]
    marks.append((best, "best", f"best epoch ({best})"))
    if last != best:
        words = "early stop" if run.training["stopped"] == "early" else "last epoch"
        marks.append((last, "stop", f"{words} ({last})"))
    return sorted(marks)


def _rows(history: pd.DataFrame) -> dict[str, Any]:
    """Return at most 100 evenly spaced epochs of the history as text."""
    table = history.iloc[:: max(1, -(-len(history) // 100))].drop(columns="phase")
    cells = [["" if pd.isna(value) else number(float(value), 4) for value in row] for row in table.to_numpy()]
    return {"names": [str(name).replace("_", " ") for name in table], "cells": cells}
