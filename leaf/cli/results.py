"""`leaf results`: what the last run of the pipeline gave, in a few lines a person can read."""

from pathlib import Path
from typing import Any

import typer

from leaf.store import read_json

app = typer.Typer()

_BASELINES = (
    ("joint_histogram", "colours alone, the hardest baseline,"),
    ("histogram", "colour histogram"),
    ("majority", "always the largest class"),
)
_SHOWN = 6  # classes


def summarize_metrics(folder: str | Path = "metrics") -> str:
    """The summary of the metrics in `folder`; raises LeafError where a metrics file is missing."""
    ingest, clean, split, balance, train, evaluate = (
        read_json(Path(folder) / f"{name}.json")
        for name in ("ingest", "clean", "split", "balance", "train", "evaluate")
    )
    lines = [
        f"images     {ingest['images']} in ({_classes(ingest['classes'])}); "
        f"out: {clean['outliers']} outliers, {clean['duplicates']} duplicates, "
        f"{clean['near_duplicates']} near-duplicates; {clean['kept']} kept",
        f"split      {split['train']} train, {split['validation']} validation, {split['test']} test; "
        f"{split['shared_groups']} groups shared between them",
        f"balance    {balance['synthetic']} synthetic training images ({_classes(balance['after'])} now)",
        f"training   {train['epochs']} epochs, best {train['best_epoch']}: "
        f"validation accuracy {_percent(train['best_validation_accuracy'])}",
    ]
    beside = ", ".join(f"{said} {_percent(evaluate['baseline'][f'{name}_accuracy'])}" for name, said in _BASELINES)
    test = evaluate["test"]
    if test["accuracy"] is None:
        lines += [
            f"validation accuracy {_percent(evaluate['validation']['accuracy'])}; {beside}",
            "           there is no test split: these figures chose the model and flatter it",
        ]
    else:
        interval = f"{_percent(test['accuracy_low'])} to {_percent(test['accuracy_high'])}"
        lines.append(f"test       accuracy {_percent(test['accuracy'])} (95 % interval {interval}); {beside}")
        if len(test["recall"]) > 2:
            worst = sorted(test["recall"].items(), key=lambda item: (item[1] is None, item[1]))[:_SHOWN]
            found = ", ".join(f"{name} {_percent(share)}" for name, share in worst)
            lines.append(f"           found of each class, the fewest first: {found}")
    return "\n".join(
        [*lines, "", "Look at  reports/report.html   Change  dvc exp run -S dropout=0.2   Why  leaf why 58"]
    )


def _classes(counts: dict[str, Any]) -> str:
    said = [f"{count} {name}" for name, count in counts.items()]
    return ", ".join(said[:_SHOWN]) + (f" and {len(said) - _SHOWN} classes more" if len(said) > _SHOWN else "")


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


@app.command(epilog="Example: `leaf results`, after `dvc repro`")
def command() -> None:
    """Print what the last run of the pipeline gave."""
    typer.echo(summarize_metrics())
