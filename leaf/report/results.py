"""Report sections on training and results: curves, scores, baselines, calibration and accuracy by folder."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from leaf.evaluate import BASELINES
from leaf.finished_run import Run
from leaf.params import keys
from leaf.report.charts import (
    Interval,
    Mark,
    Panel,
    Series,
    confusion,
    confusion_grid,
    curves,
    intervals,
    reliability,
    square,
)
from leaf.report.svg import Figure, both, number, plural, share_shown

FOLDERS = 24
LOWER = ("log_loss", "brier", "calibration_error")  # lower is better for these scores
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
"""The scores of one split in scores.json."""


def scored_split(scores: Mapping[str, Any]) -> tuple[str, Block]:
    """Return the name and scores of the test split, or of the validation split if there is no test split."""
    splits = scores.get("splits") or {}
    name = "test" if splits.get("test") else "validation"
    return name, splits.get(name) or {}


def score_name(key: str) -> str:
    """Return a score's display name, with a note if lower is better."""
    return _NAMES[key] + (" (lower is better)" if key in LOWER else "")


def lowest_recall(run: Run, block: Block) -> tuple[float, str] | None:
    """Return the lowest recall and its class, or None if there are no recalls."""
    found = zip(block.get("classes") or [], run.names, strict=False)
    return min(((each["recall"], name) for each, name in found if each.get("recall") is not None), default=None)


def interval(name: str, block: Block, kind: str = "first", key: str = "accuracy") -> Interval:
    """Return the score `key` with its interval."""
    return Interval(name, block[key], block.get(f"{key}_low"), block.get(f"{key}_high"), kind)


def baselines(scores: Mapping[str, Any]) -> list[Interval]:
    """Return the baseline accuracies in scores.json."""
    found = scores.get("baseline") or {}
    known = {key: found[key] for key in BASELINES if (found.get(key) or {}).get("accuracy") is not None}
    return [interval(BASELINES[key].capitalize(), each, "gone") for key, each in known.items()]


def section(run: Run) -> dict[str, Any]:
    """Return the figures and the table for the scored split."""
    name, block = scored_split(run.scores)
    validation = (run.scores.get("splits") or {}).get("validation") or {}
    splits = [(name, block), *([("validation", validation)] if name == "test" and validation else [])]
    return {
        "split": name,
        "block": block,
        "accuracy": _accuracy(run, splits),
        "table": _table(splits),
        "confusion": _confusion(run, name, block),
        "by_class": _by_class(run, name, block),
        "worst_pairs": _worst_pairs(run, block),
        "roc": _roc(run, splits),
        "precision_recall": _precision_recall(run, splits),
        "calibration": _calibration(name, block),
        "folders": _folders(run),
        "ungrouped": not run.index["group"].ne("").any() and run.params.get("dataset") != keys()["dataset"]["default"],
        "threshold": run.scores.get("threshold"),
        "threshold_source": run.scores.get("threshold_source"),
    }


Splits = Sequence[tuple[str, Block]]
"""Name and scores of the scored split and, if that is the test split, of the validation split."""


def _dots(words: str, rows: Sequence[Interval], note: str = "", least: float = 1.0) -> Figure:
    said = f"{words} with 95% interval. {'; '.join(map(str, rows))}."
    return both(lambda width: intervals(rows, said, width, least), note)


def _accuracy(run: Run, splits: Splits) -> Figure | None:
    kinds = zip(splits, ("first", "ink"), strict=False)
    known = [(name, block, kind) for (name, block), kind in kinds if block.get("accuracy") is not None]
    rows = [interval(f"This network, {name}", block, kind) for name, block, kind in known]
    return _dots("Accuracy", rows + baselines(run.scores), least=0.5) if rows else None


def _table(splits: Splits) -> dict[str, Any]:
    rows = []
    for key in _NAMES:
        cells = []
        for _, scores in splits:
            value, low, high = (scores.get(key + end) for end in ("", "_low", "_high"))
            span = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else ""
            cells.append({"value": "–" if value is None else f"{value:.3f}", "span": span})
        if any(key in scores for _, scores in splits):
            rows.append({"name": score_name(key), "cells": cells})
    return {"splits": [(name, int(scores.get("images") or 0)) for name, scores in splits], "rows": rows}


def _confusion(run: Run, name: str, block: Block) -> Figure | None:
    matrix = block.get("confusion")
    if not matrix:
        return None
    if len(run.classes) > 2:
        right = sum(matrix[label][label] for label in range(len(matrix)))
        words = f"Confusion matrix on {name} of {len(matrix)} classes: {right:,} of {sum(map(sum, matrix)):,} correct."
        caption = "Rows: true class. Columns: predicted class, numbered like the rows."
        return both(lambda width: confusion_grid(matrix, run.names, words, width), caption)
    first, second = run.names
    rows = (
        f"of the {label} images {row[0]:,} predicted {first} and {row[1]:,} {second}"
        for label, row in zip(run.names, matrix, strict=True)
    )
    return Figure(confusion(matrix, run.names, f"Confusion matrix on {name}: {'; '.join(rows)}."))


def _by_class(run: Run, name: str, block: Block) -> Figure | None:
    """Return the recall of each class, lowest first, for more than two classes."""
    found = zip(block.get("classes") or [], run.names, strict=False)
    known = [(each, label) for each, label in found if each.get("recall") is not None]
    if len(run.classes) == 2 or not known:
        return None
    known.sort(key=lambda entry: entry[0]["recall"])
    rows = [interval(f"{label} · {each['images']:,}", each, key="recall") for each, label in known]
    return _dots(f"Recall of each class on {name}", rows)


def _worst_pairs(run: Run, block: Block) -> list[str]:
    """Describe the most frequent errors, for more than two classes."""
    return [
        f"{each['images']:,}\xa0{run.display(each['label'])} predicted as {run.display(each['predicted'])}"
        for each in (block.get("worst_pairs") or [])[: 0 if len(run.classes) == 2 else 5]
    ]


def _roc(run: Run, splits: Splits) -> Figure | None:
    series = _lines(splits, "roc", "fpr", "tpr")
    if not series:
        return None
    (name, block), (first, second) = splits[0], run.names
    matrix, area = _matrix(block), block.get("roc_auc")
    point = (matrix[0][1] / sum(matrix[0]), matrix[1][1] / sum(matrix[1])) if matrix else None
    words = f"ROC curve on {name}" + (f": area {number(area)}." if area is not None else ".")
    drawn = square(series, ("false positive rate", "true positive rate"), words, chance=True, point=point)
    caption = f"Recall of {second} against the share of {first} images predicted as {second}."
    return Figure(drawn, None, f"{caption} {_legend(series, point)}")


def _precision_recall(run: Run, splits: Splits) -> Figure | None:
    series = _lines(splits, "precision_recall", "recall", "precision")
    if not series:
        return None
    (name, block), second = splits[0], run.names[1]
    matrix, point = _matrix(block), None
    if matrix and matrix[0][1] + matrix[1][1]:
        point = (matrix[1][1] / sum(matrix[1]), matrix[1][1] / (matrix[0][1] + matrix[1][1]))
    drawn = square(series, ("recall", "precision"), f"Precision against recall of {second} on {name}.", point=point)
    return Figure(drawn, None, f"Of {second} images. {_legend(series, point)}")


def _matrix(block: Block) -> list[list[int]] | None:
    """Return the confusion matrix if both classes have images."""
    matrix = block.get("confusion")
    return matrix if matrix and all(sum(row) for row in matrix) else None


def _lines(splits: Splits, key: str, across: str, up: str) -> list[Series]:
    kinds = zip(splits, ("stroke-first", "stroke-muted dotted"), strict=False)
    found = [(name, block.get(key) or {}, kind) for (name, block), kind in kinds]
    return [Series(name, line[across], line[up], kind) for name, line, kind in reversed(found) if line.get(across)]


def _legend(series: list[Series], point: tuple[float, float] | None) -> str:
    lines = f"Solid: {series[-1].name}; dotted: {series[0].name}. " if len(series) > 1 else ""
    return lines + ("The dot marks the threshold." if point else "")


def _calibration(name: str, block: Block) -> Figure | None:
    bins = [each for each in block.get("calibration") or [] if each["images"]]
    if not bins:
        return None
    error, before = block["calibration_error"], block.get("before_calibration")
    words = f"Calibration on {name}: accuracy against confidence in {len(bins)} bins; expected calibration error "
    caption = "Each dot is a bin; its size shows the number of images. A calibrated network lies on the dashed line."
    if before:
        change = f"from {number(before['calibration_error'])} to {number(error)}"
        caption += f" The temperature changed the calibration error {change}."
    return Figure(reliability(bins, f"{words}{number(error)}."), None, caption)


def _folders(run: Run) -> Figure | None:
    folders = run.scores.get("by_folder") or []
    names = {str(entry["folder"]).rpartition("/")[2] for entry in folders}
    if len(folders) < 2 or names == set(run.classes):  # class folders are already shown by class
        return None
    folders = sorted(folders, key=lambda entry: (entry["accuracy"], str(entry["folder"])))
    rows = [
        Interval(f"{each['folder'] or '(top)'} · {each['images']:,}", each["accuracy"], each["low"], each["high"])
        for each in folders[:FOLDERS]
    ]
    return _dots("Accuracy by source folder, lowest first,", rows, share_shown(len(rows), len(folders), "folders"))


_TRAINING, _VALIDATION = ("training", "stroke-muted dotted"), ("validation", "stroke-first")
_CURVES = (  # title, start of the axis, columns of history.csv
    ("Accuracy", None, {"accuracy": _TRAINING, "validation_accuracy": _VALIDATION}),
    ("Loss", None, {"loss": _TRAINING, "validation_loss": _VALIDATION}),
    ("Learning rate", 0.0, {"learning_rate": ("rate", "stroke-ink")}),
)


def column_series(history: pd.DataFrame, column: str, name: str, kind: str) -> list[Series]:
    """Return a column of history.csv as a line in a list, or an empty list if it has no values."""
    if column not in history or history[column].isna().all():
        return []
    return [Series(name, history["epoch"].tolist(), history[column].astype(float).tolist(), kind)]


def training_section(run: Run) -> dict[str, Any]:
    """Return a figure of all curves in history.csv, and the epochs as text and as a table."""
    history = run.history
    panels = [
        Panel(title, lines, floor)
        for title, floor, columns in _CURVES
        if (lines := [each for column, line in columns.items() for each in column_series(history, column, *line)])
    ]
    marks = _marks(run)
    words = " ".join([f"Curves over {plural(len(history), 'epoch')}.", *map(_sentence, panels)])
    words += " " + "; ".join(mark.words for mark in marks) + "." if marks else ""
    key = "Solid: validation; dotted: training."
    return {
        "figure": both(lambda width: curves(panels, marks, words, width), key) if panels else None,
        "epochs": len(history),
        "best": run.training.get("best_epoch"),
        "stopped": run.training.get("stopped"),
        "probe": run.training.get("probe"),
        "patience": run.params.get("patience"),
        "monitor": str(run.params.get("monitor", "")).replace("_", " "),
        "rows": _rows(history),
    }


def _marks(run: Run) -> list[Mark]:
    marks = []
    epochs, best = run.history["epoch"].tolist(), run.training.get("best_epoch")
    if "phase" in run.history:
        phases = run.history.drop_duplicates("phase")["epoch"].tolist()
        marks += [Mark(epoch, f"phase 2 from epoch {epoch}", "phase") for epoch in phases[1:2]]
    if best is not None:
        marks.append(Mark(best, f"best epoch {best}" + (", the last" if [best] == epochs[-1:] else ""), "best"))
    if epochs and epochs[-1] != best:
        words = "stopped early" if run.training.get("stopped") == "early" else "last epoch"
        marks.append(Mark(epochs[-1], f"{words}, {epochs[-1]}", "stop"))
    return marks


def _sentence(panel: Panel) -> str:
    ends = [f"{entry.name} from {number(entry.ys[0])} to {number(entry.ys[-1])}" for entry in panel.series]
    return f"{panel.title}: {', '.join(ends)}."


def _rows(history: pd.DataFrame) -> dict[str, Any]:
    """Return the history as text, at most 100 evenly spaced epochs."""
    table = history.iloc[:: max(1, -(-len(history) // 100))].drop(columns="phase", errors="ignore")
    cells = [["" if pd.isna(value) else number(float(value), 4) for value in row] for row in table.to_numpy()]
    return {"names": [str(name).replace("_", " ") for name in table], "cells": cells}
