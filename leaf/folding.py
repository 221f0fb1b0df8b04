"""`leaf folds`: one DVC experiment for each fold of a cross-validation, and what they say together."""

from collections.abc import Sequence
from typing import Any

import yaml

from leaf import params
from leaf.comparing import PREDICTIONS, reader, table
from leaf.experiments import experiment, parse_settings, with_settings
from leaf.params import Params
from leaf.running import run_rows
from leaf.scoring.folds import Folds, summarize

FOLDS = 5


def run_folds(row: str | None, settings: Sequence[str], stem: str, force: bool = False) -> int:
    """Run the folds of `row` of experiments.yaml (None for params.yaml as it is) as experiments STEM-fold-0, ….

    `settings` (`key=value`) lie over the row; `folds` among them or in params.yaml says how many, else 5. Each runs in
    a folder of its own: the workspace stays as it is. Returns dvc's exit status, of the first fold that failed.
    """
    chosen, _ = folded(row, settings)
    rows = {f"{stem}-fold-{fold}": {**chosen, "fold": fold} for fold in range(chosen["folds"])}
    return run_rows(rows, force, aside=True)


def folded(row: str | None, settings: Sequence[str]) -> tuple[dict[str, Any], Params]:
    """What `row` and `settings` lay over params.yaml, with `folds` (5 where nothing says otherwise); and the whole."""
    values = params.load().model_dump()
    chosen = {**(experiment(row).set if row else {}), **parse_settings(settings)}
    chosen["folds"] = chosen.get("folds", values["folds"]) or FOLDS
    return chosen, with_settings(values, {**chosen, "fold": 0})


def finished(stem: str) -> Folds:
    """Sum up the experiments STEM-fold-0, …; raises LeafError where one is missing or they do not fit together."""
    number = yaml.safe_load(reader(f"{stem}-fold-0")("params.yaml"))["folds"]
    return summarize([table(reader(f"{stem}-fold-{fold}"), PREDICTIONS) for fold in range(number)])
