"""Render several runs side by side on one page: scores with intervals, significance tests and learning curves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leaf.errors import LeafError, plural
from leaf.evaluate.model_comparison import Comparison, compare_revisions
from leaf.params import flatten
from leaf.report.charts import Dots, Figure, Interval, Panel, both, curves, differences, square
from leaf.report.charts import scores as score_chart
from leaf.report.render import fill, shown
from leaf.report.results import LOWER, Block, baselines, column_series, curve_series, interval, score_name
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


def scored_split(runs: Sequence[RunSummary]) -> str:
    """Return the split to compare on: `test`, or `validation` if a run has no test split."""
    return "test" if all(run.scores["splits"]["test"] for run in runs) else "validation"


def render_side_by_side(runs: Sequence[RunSummary], verdicts: Sequence[Comparison], refusal: str = "") -> str:
    """Return the HTML page. If the runs cannot be compared, `verdicts` is empty and `refusal` is the reason."""
    split = scored_split(runs)
    blocks = [run.scores["splits"][split] for run in runs]
    changed = _changed(runs)
    context = {
        "runs": [{"name": run.name, "kind": f"stroke-series{place}"} for place, run in enumerate(runs, start=1)],
        "split": split,
        "images": sorted({block["images"] for block in blocks}),
        "verdicts": verdicts,
        "refusal": refusal,
        "difference": differences([Interval(one.b, one.difference, one.low, one.high) for one in verdicts]),
        "accuracy": _accuracy(runs, blocks),
        "scores": _scores(blocks),
        "curves": _curves(runs),
        "roc": _roc(runs, blocks, split),
        "changed": changed,
        "made": _made(runs, {row["key"] for row in changed}),
    }
    return fill("side_by_side.html.j2", context)


def _accuracy(runs: Sequence[RunSummary], blocks: Sequence[Block]) -> Dots:
    rows = [
        interval(run.name, block, f"series{place}")
        for place, (run, block) in enumerate(zip(runs, blocks, strict=True), start=1)
    ]
    return score_chart([*rows, *baselines(runs[0].scores)])


def _scores(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    rows = []
    for key in _SCORES:
        values = [block[key] for block in blocks]
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
    if not trained:
        return None
    panels = [
        Panel(title, [column_series(run.history, column, run.name, kind) for run, kind in trained], floor)
        for title, column, floor in (
            ("Validation accuracy", "validation_accuracy", None),
            ("Validation loss", "validation_loss", None),
            ("Learning rate", "learning_rate", 0.0),
        )
    ]
    epochs = [
        f"{run.name}: {plural(len(run.history), 'epoch')}, best epoch {run.training.get('best_epoch')}" for run in runs
    ]
    words = f"Curves by epoch, one line per run. {'; '.join(epochs)}."
    return both(lambda width: curves(panels, [], words, width))


def _roc(runs: Sequence[RunSummary], blocks: Sequence[Block], split: str) -> Figure | None:
    series = [
        curve_series(run.name, block["roc"], ("fpr", "tpr"), f"stroke-series{place}")
        for place, (run, block) in enumerate(zip(runs, blocks, strict=True), start=1)
        if "roc" in block
    ]
    if not series:
        return None
    words = f"ROC curves on {split}, one line per run: " + ", ".join(entry.name for entry in series) + "."
    axes = "false positive rate", "true positive rate"
    return Figure(*(square(series, axes, words, diagonal=True, size=size) for size in (460, 340)))


def _changed(runs: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """Return the parameters that differ between the runs, with their values."""
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.params):
        values = [run.params.get(key) for run in runs]
        if any(value != values[0] for value in values):
            rows.append({"key": key, "values": ["–" if value is None else shown(value) for value in values]})
    return rows


def _made(runs: Sequence[RunSummary], shown_keys: Collection[str]) -> list[tuple[str, list[str]]]:
    """Return facts about each run, except the parameters in `shown_keys`."""
    keys = [key for key in ("backbone", "parameters", "epochs", "best_epoch", "seed") if key not in shown_keys]
    rows = [(key.replace("_", " ").capitalize(), [_fact(run.training.get(key)) for run in runs]) for key in keys]
    return [*rows, ("Model, SHA-256", [str(run.training.get("model_sha256") or "–")[:12] for run in runs])]


def _fact(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def write_report(revisions: Sequence[str], to: str) -> str:
    """Write a page that compares `revisions` to the file `to`, and return a summary.

    A single revision is compared with the workspace. Revisions joined by commas are seeds of one recipe: the page shows
    each seed separately, but the comparison pools them.

    Raises:
        LeafError: if a revision is unknown or repeated, has no results, or if there are more than MOST revisions.
    """
    recipes = list(revisions) if len(revisions) > 1 else [WORKSPACE, *revisions]
    names = [name for recipe in recipes for name in recipe.split(",")]
    if len(names) > MOST:
        raise LeafError(f"report: {len(names)} revisions do not fit on one page. Pass at most {MOST}.")
    if len(set(names)) < len(names):
        raise LeafError(f"report: a revision is repeated: {' '.join(names)}. Pass each revision once.")
    runs = [read_summary(name) for name in names]
    verdicts, refusal = [], ""
    try:
        try:
            verdicts = compare_revisions(recipes, scored_split(runs))
        except LeafError as error:
            refusal = str(error)
        html = render_side_by_side(runs, verdicts, refusal)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise LeafError(
            f"report: {', '.join(names)}: scores.json, history.csv or run.json is damaged or outdated. Run `dvc repro`."
        ) from None
    with replacing(to) as partial:
        partial.write_text(html, encoding="utf-8")
    return "\n".join([*([one.sentence for one in verdicts] or [refusal]), f"report: {to}"])


def read_summary(revision: str) -> RunSummary:
    """Read the files that the page needs from a git revision, an experiment or the workspace."""
    read = reader(revision)
    params = flatten(parameters(read))
    history = read_table(f"{revision}: models/history.csv", ("epoch",), data=read("models/history.csv"))
    plotted = history.reindex(columns=["validation_accuracy", "validation_loss", "learning_rate"])
    if len(plotted.select_dtypes("number").columns) < len(plotted.columns):
        raise LeafError(
            f"{revision}: models/history.csv: not all values are numbers. Run `dvc repro` or `dvc checkout`."
        )
    return RunSummary(
        name=revision,
        params=params,
        scores=read_json(f"{revision}: data/scored/scores.json", {}, read("data/scored/scores.json")),
        history=history,
        training=read_json(f"{revision}: models/run.json", {}, read("models/run.json")),
    )
