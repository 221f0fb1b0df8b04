"""Render several runs on one page: scores with intervals, significance tests and curves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leaf.errors import LeafError
from leaf.evaluate.model_comparison import Comparison, compare_revisions
from leaf.params import flatten
from leaf.report.charts import Dots, Interval, Panel, Series, curves, differences, square
from leaf.report.charts import scores as score_chart
from leaf.report.render import fill, shown
from leaf.report.results import LOWER, baselines, column_series, interval, score_name, scored_split
from leaf.report.svg import Figure, both
from leaf.revisions import WORKSPACE, parameters, reader
from leaf.store import read_json, read_table, replacing

MOST = 6
_SCORES = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss", "calibration_error")


@dataclass(frozen=True)
class RunSummary:
    """One run: its name, dotted parameters, scores.json, history.csv and run.json (`training`)."""

    name: str
    params: Mapping[str, Any]
    scores: Mapping[str, Any]
    history: pd.DataFrame
    training: Mapping[str, Any]


def render_side_by_side(runs: Sequence[RunSummary], verdicts: Sequence[Comparison], refusal: str = "") -> str:
    """Return the page for 1 to MOST `runs`; `refusal` is the reason why `verdicts` is empty."""
    split = scored_split(runs[0].scores)[0]
    context = {
        "runs": [{"name": run.name, "kind": f"stroke-series{place}"} for place, run in enumerate(runs, start=1)],
        "split": split,
        "images": sorted({int(_block(run, split).get("images") or 0) for run in runs}),
        "verdicts": verdicts,
        "refusal": refusal,
        "difference": differences([Interval(one.b, one.difference, one.low, one.high) for one in verdicts]),
        "accuracy": _accuracy(runs, split),
        "scores": _scores(runs, split),
        "curves": _curves(runs),
        "roc": _roc(runs, split),
        "changed": (changed := _changed(runs)),
        "made": _made(runs, {row["key"] for row in changed}),
    }
    return fill("side_by_side.html.j2", context)


def _block(run: RunSummary, split: str) -> Mapping[str, Any]:
    return (run.scores.get("splits") or {}).get(split) or {}


def _accuracy(runs: Sequence[RunSummary], split: str) -> Dots | None:
    blocks = [(run.name, _block(run, split), f"series{place}") for place, run in enumerate(runs, start=1)]
    rows = [interval(*each) for each in blocks if each[1].get("accuracy") is not None]
    return score_chart([*rows, *baselines(runs[0].scores)]) if rows else None


def _scores(runs: Sequence[RunSummary], split: str) -> list[dict[str, Any]]:
    rows = []
    for key in _SCORES:
        values = [_block(run, split).get(key) for run in runs]
        known = {value for value in values if value is not None}
        best = (min if key in LOWER else max)(known) if len(known) > 1 else None
        cells = [
            {"value": "–" if value is None else f"{value:.3f}", "best": value is not None and value == best}
            for value in values
        ]
        rows.append({"name": score_name(key), "cells": cells})
    return rows


def _curves(runs: Sequence[RunSummary]) -> Figure | None:
    trained = [(run, f"stroke-series{place}") for place, run in enumerate(runs, start=1) if "probe" not in run.training]
    panels = [
        Panel(column.replace("_", " ").capitalize(), lines, floor)
        for column, floor in (("validation_accuracy", None), ("validation_loss", None), ("learning_rate", 0.0))
        if (lines := [one for run, kind in trained for one in column_series(run.history, column, run.name, kind)])
    ]
    if not panels:
        return None
    words = "Curves by epoch, one line per run: " + ", ".join(panel.title.lower() for panel in panels) + ". "
    epochs = [f"{run.name}: {len(run.history)} epochs, best {run.training.get('best_epoch')}" for run in runs]
    words += "; ".join(epochs) + "."
    return both(lambda width: curves(panels, [], words, width))


def _roc(runs: Sequence[RunSummary], split: str) -> Figure | None:
    found = [
        (run.name, _block(run, split).get("roc") or {}, f"stroke-series{place}") for place, run in enumerate(runs, 1)
    ]
    series = [Series(name, lines["fpr"], lines["tpr"], kind) for name, lines, kind in found if lines.get("fpr")]
    if not series:
        return None
    words = f"ROC curves on {split}, one line per run: " + ", ".join(entry.name for entry in series) + "."
    axes = "false positive rate", "true positive rate"
    return Figure(*(square(series, axes, words, diagonal=True, size=size) for size in (460, 340)))


def _changed(runs: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """Return the parameters that differ between runs."""
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.params):
        values = [run.params.get(key) for run in runs]
        if any(value != values[0] for value in values):
            rows.append({"key": key, "values": ["–" if value is None else shown(value) for value in values]})
    return rows


def _made(runs: Sequence[RunSummary], shown_keys: Collection[str]) -> list[tuple[str, list[str]]]:
    """Return facts about each run, except the keys in `shown_keys`."""
    keys = [key for key in ("backbone", "parameters", "epochs", "best_epoch", "seed") if key not in shown_keys]
    rows = [(key.replace("_", " ").capitalize(), [_fact(run.training.get(key)) for run in runs]) for key in keys]
    return [*rows, ("Model, SHA-256", [str(run.training.get("model_sha256") or "–")[:12] for run in runs])]


def _fact(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def write_report(revisions: Sequence[str], to: str) -> str:
    """Write a page about `revisions` to the file `to` and return a summary.

    A single revision is compared with the workspace. Revisions joined by commas are seeds of one recipe: each seed is
    shown separately, but the comparison uses all of them together.

    Raises:
        LeafError: if a revision is unknown or has no results, or there are more than MOST.
    """
    recipes = list(revisions) if len(revisions) > 1 else [WORKSPACE, *revisions]
    names = [name for recipe in recipes for name in recipe.split(",")]
    if len(names) > MOST:
        raise LeafError(f"report: {len(names)} revisions are too many for one page. Give at most {MOST}.")
    if len(set(names)) < len(names):
        raise LeafError(f"report: a revision is given twice: {' '.join(names)}. Give each once.")
    runs = [read_summary(name) for name in names]
    split = "test" if all((run.scores.get("splits") or {}).get("test") for run in runs) else "validation"
    try:
        verdicts, refusal = compare_revisions(recipes, split), ""
    except LeafError as error:
        verdicts, refusal = [], str(error)
    html = render_side_by_side(runs, verdicts, refusal)
    with replacing(to) as partial:
        partial.write_text(html, encoding="utf-8")
    return "\n".join([*(one.sentence for one in verdicts), *filter(None, [refusal]), f"{to}: written"])


def read_summary(revision: str) -> RunSummary:
    """Read the page's data from a git revision, an experiment or the workspace."""
    read = reader(revision)
    params = flatten(parameters(read))
    history = read_table(f"{revision}: models/history.csv", ("epoch",), data=read("models/history.csv"))
    plotted = history.reindex(columns=["validation_accuracy", "validation_loss", "learning_rate"])
    if len(plotted.select_dtypes("number").columns) < len(plotted.columns):
        raise LeafError(f"{revision}: models/history.csv: valid: numbers. Run `dvc repro` or `dvc checkout`.")
    return RunSummary(
        name=revision,
        params=params,
        scores=read_json(f"{revision}: data/scored/scores.json", {}, read("data/scored/scores.json")),
        history=history,
        training=read_json(f"{revision}: models/run.json", {}, read("models/run.json")),
    )
