"""Render several runs side by side on one page: scores with intervals, significance tests and learning curves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leaf.errors import LeafError, plural
from leaf.evaluate.model_comparison import Comparison, compare_revisions
from leaf.params import flatten
from leaf.report.charts import Figure, Interval, Panel, both, curves, differences, scores, square
from leaf.report.render import fill, shown
from leaf.report.results import baselines, column_series, curve_series, interval, score_rows
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
    drawn = [(run, run.scores["splits"][split], f"series{place}") for place, run in enumerate(runs, start=1)]
    blocks = [block for _, block, _ in drawn]
    accuracies = [interval(run.name, block, kind) for run, block, kind in drawn]
    changed = _changed(runs)
    context = {
        "runs": [{"name": run.name, "kind": f"stroke-{kind}"} for run, _, kind in drawn],
        "split": split,
        "images": sorted({block["images"] for block in blocks}),
        "verdicts": verdicts,
        "refusal": refusal,
        "difference": differences([Interval(one.b, one.difference, one.low, one.high) for one in verdicts]),
        "accuracy": scores([*accuracies, *baselines(runs[0].scores)]),
        "scores": score_rows(blocks, _SCORES),
        "curves": _curves([(run, kind) for run, _, kind in drawn if "probe" not in run.training]),
        "roc": _roc([(run.name, block["roc"], kind) for run, block, kind in drawn if "roc" in block], split),
        "changed": changed,
        "made": _made(runs, {row["key"] for row in changed}),
    }
    return fill("side_by_side.html.j2", context)


def _curves(trained: Sequence[tuple[RunSummary, str]]) -> Figure | None:
    if not trained:
        return None
    panels = [
        Panel(title, [column_series(run.history, column, run.name, f"stroke-{kind}") for run, kind in trained], floor)
        for title, column, floor in (
            ("Validation accuracy", "validation_accuracy", None),
            ("Validation loss", "validation_loss", None),
            ("Learning rate", "learning_rate", 0.0),
        )
    ]
    epochs = [
        f"{run.name}: {plural(len(run.history), 'epoch')}, best epoch {run.training.get('best_epoch')}"
        for run, _ in trained
    ]
    words = f"Curves by epoch, one line per run. {'; '.join(epochs)}."
    return both(lambda width: curves(panels, [], words, width))


def _roc(found: Sequence[tuple[str, Mapping[str, Any], str]], split: str) -> Figure | None:
    if not found:
        return None
    series = [curve_series(name, curve, ("fpr", "tpr"), f"stroke-{kind}") for name, curve, kind in found]
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
    """Compare `revisions` on a page, write it to the file `to`, and return a summary.

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
            f"report: {', '.join(names)}: scores.json, history.csv or run.json is damaged or outdated. "
            "Run `dvc repro` for the workspace, or omit the damaged revision."
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
