"""Report sections on training and results: curves, scores, baselines, calibration and accuracy by folder."""

from collections.abc import Mapping
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
    percent,
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


def scored_split(scores: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the name and scores of the test split, or of the validation split if there is no test split."""
    splits = scores.get("splits") or {}
    name = "test" if splits.get("test") else "validation"
    return name, splits.get(name) or {}


def score_name(key: str) -> str:
    """Return a score's display name, with a note if lower is better."""
    return _NAMES[key] + (" (lower is better)" if key in LOWER else "")


def lowest_recall(run: Run, block: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return the lowest recall and its class, or None if there are no recalls."""
    found = zip(block.get("classes") or [], run.names, strict=False)
    return min(((each["recall"], name) for each, name in found if each.get("recall") is not None), default=None)


def baselines(scores: Mapping[str, Any]) -> list[Interval]:
    """Return the baseline accuracies in scores.json."""
    found = scores.get("baseline") or {}
    return [
        _interval(name.capitalize(), entry, "gone")
        for key, name in BASELINES.items()
        if (entry := found.get(key)) and entry.get("accuracy") is not None
    ]


def section(run: Run) -> dict[str, Any]:
    """Return the figures and the table for the scored split."""
    name, block = scored_split(run.scores)
    validation = (run.scores.get("splits") or {}).get("validation") or {}
    return {
        "split": name,
        "block": block,
        "accuracy": _accuracy(run, name, block, validation),
        "table": _table(name, block, validation),
        "confusion": _confusion(run, name, block),
        "by_class": _by_class(run, name, block),
        "worst_pairs": _worst_pairs(run, block),
        "roc": _roc(run, name, block, validation),
        "precision_recall": _precision_recall(run, name, block, validation),
        "calibration": _calibration(name, block),
        "folders": _folders(run),
        "ungrouped": not run.index["group"].ne("").any() and run.params.get("dataset") != keys()["dataset"]["default"],
        "threshold": run.scores.get("threshold"),
        "threshold_source": run.scores.get("threshold_source"),
    }


def _accuracy(run: Run, name: str, block: Mapping[str, Any], validation: Mapping[str, Any]) -> Figure | None:
    if block.get("accuracy") is None:
        return None
    rows = [_interval(f"This network, {name}", block, "first")]
    if name == "test" and validation.get("accuracy") is not None:
        rows.append(_interval("This network, validation", validation, "ink"))
    rows += baselines(run.scores)
    words = "Accuracy with 95% interval. " + "; ".join(_spoken(row) for row in rows) + "."
    return both(lambda width: intervals(rows, words, width, 0.5))


def _interval(words: str, block: Mapping[str, Any], kind: str) -> Interval:
    return Interval(words, block["accuracy"], block.get("accuracy_low"), block.get("accuracy_high"), kind=kind)


def _spoken(row: Interval) -> str:
    if row.low is None or row.high is None:
        return f"{row.name}: {percent(row.value)}"
    return f"{row.name}: {percent(row.value)}, {percent(row.low)} to {percent(row.high)}"


def _table(name: str, block: Mapping[str, Any], validation: Mapping[str, Any]) -> dict[str, Any]:
    splits = [(name, block)] + ([("validation", validation)] if name == "test" and validation else [])
    rows = []
    for key in _NAMES:
        cells = []
        for _, scores in splits:
            value, low, high = (scores.get(key + end) for end in ("", "_low", "_high"))
            span = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else ""
            cells.append({"value": "–" if value is None else f"{value:.3f}", "span": span})
        if any(key in scores for _, scores in splits):
            rows.append({"name": score_name(key), "cells": cells})
    images = [int(scores.get("images") or 0) for _, scores in splits]
    return {"splits": [split for split, _ in splits], "images": images, "rows": rows}


def _confusion(run: Run, name: str, block: Mapping[str, Any]) -> Figure | None:
    matrix = block.get("confusion")
    if not matrix:
        return None
    if len(run.classes) > 2:
        right = sum(matrix[label][label] for label in range(len(matrix)))
        words = f"Confusion matrix on {name} of {len(matrix)} classes: {right:,} of {sum(map(sum, matrix)):,} correct."
        caption = "Rows: true class. Columns: predicted class, numbered as the rows."
        return both(lambda width: confusion_grid(matrix, run.names, words, width), caption)
    first, second = run.names
    words = (
        f"Confusion matrix on {name}: of the {first} images {matrix[0][0]:,} predicted {first} and {matrix[0][1]:,} "
        f"{second}; of the {second} images {matrix[1][0]:,} predicted {first} and {matrix[1][1]:,} {second}."
    )
    return Figure(confusion(matrix, run.names, words))


def _by_class(run: Run, name: str, block: Mapping[str, Any]) -> Figure | None:
    """Return the recall of each class, lowest first, for more than two classes."""
    found = [(label, each) for label, each in enumerate(block.get("classes") or []) if each.get("recall") is not None]
    if len(run.classes) == 2 or not found:
        return None
    found.sort(key=lambda entry: (entry[1]["recall"], entry[0]))
    rows = [
        Interval(
            f"{run.names[label]} · {each['images']:,}",
            each["recall"],
            each.get("recall_low"),
            each.get("recall_high"),
            kind="first",
        )
        for label, each in found
    ]
    words = f"Recall of each class on {name} with 95% interval. " + "; ".join(_spoken(row) for row in rows) + "."
    return both(lambda width: intervals(rows, words, width))


def _worst_pairs(run: Run, block: Mapping[str, Any]) -> list[str]:
    """Describe the most frequent errors, for more than two classes."""
    if len(run.classes) == 2:
        return []
    return [
        f"{each['images']:,}\xa0{run.display(each['label'])} predicted as {run.display(each['predicted'])}"
        for each in (block.get("worst_pairs") or [])[:5]
    ]


def _roc(run: Run, name: str, block: Mapping[str, Any], validation: Mapping[str, Any]) -> Figure | None:
    series = _unit(name, block, validation, "roc", "fpr", "tpr")
    if not series:
        return None
    first, second = run.names
    area, point = block.get("roc_auc"), None
    if matrix := _matrix(block):
        point = (matrix[0][1] / sum(matrix[0]), matrix[1][1] / sum(matrix[1]))
    words = f"ROC curve on {name}" + (f": area {number(area)}" if area is not None else "")
    return Figure(
        square(series, ("false positive rate", "true positive rate"), words + ".", chance=True, point=point),
        None,
        f"Recall of {second} against the share of {first} images predicted as {second}. {_key(series, point)}",
    )


def _precision_recall(run: Run, name: str, block: Mapping[str, Any], validation: Mapping[str, Any]) -> Figure | None:
    series = _unit(name, block, validation, "precision_recall", "recall", "precision")
    if not series:
        return None
    words, point = f"Precision against recall of {run.names[1]} on {name}.", None
    if (matrix := _matrix(block)) and matrix[0][1] + matrix[1][1]:
        point = (matrix[1][1] / sum(matrix[1]), matrix[1][1] / (matrix[0][1] + matrix[1][1]))
    drawn = square(series, ("recall", "precision"), words, point=point)
    return Figure(drawn, None, f"Of {run.names[1]} images. {_key(series, point)}")


def _matrix(block: Mapping[str, Any]) -> list[list[int]] | None:
    """Return the confusion matrix if both classes have images."""
    matrix = block.get("confusion")
    return matrix if matrix and all(sum(row) for row in matrix) else None


def _unit(
    name: str, block: Mapping[str, Any], validation: Mapping[str, Any], key: str, across: str, up: str
) -> list[Series]:
    found = []
    both_splits = [(validation, "validation", "stroke-muted dotted")] if name == "test" else []
    for scores, words, kind in [*both_splits, (block, name, "stroke-first")]:
        lines = scores.get(key) or {}
        if lines.get(across) and lines.get(up):
            found.append(Series(words, lines[across], lines[up], kind))
    return found


def _key(series: list[Series], point: tuple[float, float] | None) -> str:
    lines = f"Solid: {series[-1].name}; dotted: {series[0].name}. " if len(series) > 1 else ""
    return lines + ("The dot marks the threshold." if point else "")


def _calibration(name: str, block: Mapping[str, Any]) -> Figure | None:
    bins = [
        entry for entry in block.get("calibration") or [] if entry.get("images") and entry.get("confidence") is not None
    ]
    if not bins:
        return None
    error = block.get("calibration_error")
    words = f"Calibration on {name}: accuracy against confidence in {len(bins)} bins"
    words += f"; expected calibration error {number(error)}." if error is not None else "."
    caption = "Each dot is a bin; its size shows the number of images. A calibrated network lies on the dashed line."
    before = (block.get("before_calibration") or {}).get("calibration_error")
    if error is not None and before is not None:
        caption += f" The temperature changed the calibration error from {number(before)} to {number(error)}."
    return Figure(reliability(bins, words), None, caption)


def _folders(run: Run) -> Figure | None:
    folders = [entry for entry in run.scores.get("by_folder") or [] if entry.get("accuracy") is not None]
    names = {str(entry["folder"]).rpartition("/")[2] for entry in folders}
    if len(folders) < 2 or names == set(run.classes):  # class folders are already shown by class
        return None
    folders.sort(key=lambda entry: (entry["accuracy"], str(entry["folder"])))
    shown = folders[:FOLDERS]
    rows = [
        Interval(
            f"{str(entry['folder']) or '(top)'} · {int(entry['images']):,}",
            entry["accuracy"],
            entry.get("low"),
            entry.get("high"),
            kind="first",
        )
        for entry in shown
    ]
    words = "Accuracy by source folder with 95% interval, lowest first. " + "; ".join(_spoken(row) for row in rows)
    note = share_shown(len(shown), len(folders), "folders")
    return both(lambda width: intervals(rows, words + ".", width), note)


_QUANTITIES = (("accuracy", "Accuracy", None), ("loss", "Loss", None))


def training_section(run: Run) -> dict[str, Any]:
    """Return a figure of all curves in history.csv, and the epochs as text and as a table."""
    history = run.history
    panels = [panel for quantity in _QUANTITIES if (panel := _panel(history, *quantity))]
    if "learning_rate" in history and history["learning_rate"].notna().any():
        panels.append(Panel("Learning rate", [_series(history, "learning_rate", "rate", "stroke-ink")], 0.0))
    marks = _marks(run)
    epochs = len(history)
    words = f"Curves over {plural(epochs, 'epoch')}. " + " ".join(_sentence(panel) for panel in panels)
    words += " " + "; ".join(mark.words for mark in marks) + "." if marks else ""
    return {
        "figure": both(lambda width: curves(panels, marks, words, width), "Solid: validation; dotted: training.")
        if panels
        else None,
        "epochs": epochs,
        "best": _integer(run.training.get("best_epoch")),
        "stopped": run.training.get("stopped"),
        "probe": run.training.get("probe"),
        "patience": run.params.get("patience"),
        "monitor": str(run.params.get("monitor", "")).replace("_", " "),
        "rows": _rows(history),
    }


def _panel(history: pd.DataFrame, name: str, title: str, floor: float | None) -> Panel | None:
    """Draw one quantity's curves, training dotted and validation solid, as in the course report."""
    series = [
        _series(history, column, words, kind)
        for column, words, kind in (
            (name, "training", "stroke-muted dotted"),
            (f"validation_{name}", "validation", "stroke-first"),
        )
        if column in history and history[column].notna().any()
    ]
    return Panel(title, series, floor) if series else None


def _series(history: pd.DataFrame, column: str, words: str, kind: str) -> Series:
    return Series(words, history["epoch"].astype(float).tolist(), history[column].astype(float).tolist(), kind)


def _marks(run: Run) -> list[Mark]:
    marks = []
    phases = run.history["phase"] if "phase" in run.history else pd.Series(dtype=object)
    started = run.history.loc[phases.ne(phases.shift()).to_numpy(), "epoch"].tolist() if len(phases) else []
    marks += [Mark(int(epoch), f"phase 2 from epoch {epoch}", "phase") for epoch in started[1:2]]
    best = _integer(run.training.get("best_epoch"))
    last = int(run.history["epoch"].iloc[-1]) if len(run.history) else best
    if best is not None:
        marks.append(Mark(best, f"best epoch {best}" + (", the last" if best == last else ""), "best"))
    if last is not None and last != best:
        words = "stopped early" if run.training.get("stopped") == "early" else "last epoch"
        marks.append(Mark(last, f"{words}, {last}", "stop"))
    return marks


def _sentence(panel: Panel) -> str:
    ends = [f"{entry.name} from {number(entry.ys[0])} to {number(entry.ys[-1])}" for entry in panel.series]
    return f"{panel.title}: {', '.join(ends)}."


def _rows(history: pd.DataFrame) -> dict[str, Any]:
    """Return the history as text, at most 100 evenly spaced epochs."""
    step = max(1, -(-len(history) // 100))
    table = history.iloc[::step]
    names = [name for name in table.columns if name != "phase"]
    cells = [
        [f"{int(row[name])}" if name == "epoch" else _cell(row[name]) for name in names] for _, row in table.iterrows()
    ]
    return {"names": [name.replace("_", " ") for name in names], "cells": cells}


def _cell(value: Any) -> str:
    return "" if pd.isna(value) else number(float(value), 4)


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) else None
