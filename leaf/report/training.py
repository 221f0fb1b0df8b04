"""The curves of training, the best epoch and the stop."""

from typing import Any

import pandas as pd

from leaf.report.charts import Mark, Panel, Series, curves
from leaf.report.run import Run
from leaf.report.svg import both, number, plural

_QUANTITIES = (("accuracy", "Accuracy", None), ("loss", "Loss", None))


def section(run: Run) -> dict[str, Any]:
    """The figure of all curves that history.csv holds, the epochs in words and as a table."""
    history = run.history
    panels = [panel for quantity in _QUANTITIES if (panel := _panel(history, *quantity))]
    if "learning_rate" in history and history["learning_rate"].notna().any():
        panels.append(Panel("Learning rate", [_series(history, "learning_rate", "rate", "stroke-ink")], 0.0))
    marks = _marks(run)
    epochs = len(history)
    told = f"Curves over {plural(epochs, 'epoch')}. " + " ".join(_sentence(panel) for panel in panels)
    told += " " + "; ".join(mark.words for mark in marks) + "." if marks else ""
    return {
        "figure": both(lambda width: curves(panels, marks, told, width), "Solid: validation; dotted: training.")
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
    """Training dotted, validation solid, as the report draws them."""
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
    """The history as text for the table behind the figure, at most a hundred rows spread over the epochs."""
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
