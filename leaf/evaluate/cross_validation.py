"""`leaf folds`: cross-validation with one DVC experiment per fold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from leaf import params
from leaf.dvc_experiments import run_rows
from leaf.errors import LeafError
from leaf.evaluate.statistics import mean_interval, proportion_interval
from leaf.experiments import parse_settings, row_settings, with_settings
from leaf.params import Params
from leaf.revisions import PREDICTIONS, parameters, reader, table

FOLDS = 5  # default number of folds


def summarize(predictions: Sequence[pd.DataFrame]) -> str:
    """Return a table of all folds and confidence intervals as text.

    `predictions` contains a table `image,split,label,predicted,group` for each fold.

    Raises:
        LeafError: if an image is tested in several folds or a validation image is never tested.
    """
    every = pd.concat([fold.assign(fold=number) for number, fold in enumerate(predictions)])
    every["right"] = every["predicted"].eq(every["label"])
    tested, validated = (every[every["split"].eq(name)] for name in ("test", "validation"))
    if tested["image"].duplicated().any() or not set(validated["image"]) <= set(tested["image"]):
        raise LeafError(
            "folds: an image was tested twice or never, because the data changed between folds. Run all folds "
            "again with --force."
        )
    test, validation = (part.groupby("fold")["right"].mean().to_numpy() for part in (tested, validated))
    low, high = mean_interval(test)
    right, groups = tested["right"].to_numpy(), tested["group"].to_numpy()
    all_low, all_high = proportion_interval(right, groups)
    gap = 100 * (validation - test)
    gap_low, gap_high = mean_interval(gap)
    rows = zip(tested.groupby("fold").size(), test, validation, strict=True)
    lines = [
        "fold  test images  test accuracy  validation accuracy",
        *(f"{fold:4}  {images:11}  {one:13.3f}  {other:19.3f}" for fold, (images, one, other) in enumerate(rows)),
        "",
        f"accuracy over {len(test)} folds: mean {test.mean():.3f}, standard deviation {test.std(ddof=1):.3f}",
        f"95% CI of the mean over folds (Student's t): {max(low, 0):.3f} to {min(high, 1):.3f}",
        f"95% CI over all {len(right)} images in {len(np.unique(groups))} groups, each tested once (Wilson): "
        f"{right.mean():.3f}, {all_low:.3f} to {all_high:.3f}",
        f"validation minus test: {gap.mean():+.1f} points (95% CI over folds {gap_low:+.1f} to {gap_high:+.1f})",
        "Folds share training images, so the interval over folds is too narrow (Bengio and Grandvalet 2004).",
    ]
    return "\n".join(lines)


def run_folds(row: str | None, settings: Sequence[str], stem: str, force: bool = False) -> int:
    """Run a row of experiments.yaml once per fold, as the experiments STEM-fold-0, STEM-fold-1, …

    If `row` is None, run params.yaml instead. `settings` (`key=value`) override its values. Each fold runs in its own
    folder. Return the exit status of the first failed fold, or 0 if none failed.
    """
    chosen, _ = fold_settings(row, settings)
    rows = {f"{stem}-fold-{fold}": {**chosen, "fold": fold} for fold in range(chosen["folds"])}
    return run_rows(rows, force, temp=True)


def fold_settings(row: str | None, settings: Sequence[str]) -> tuple[dict[str, Any], Params]:
    """Return the parameters that `row` and `settings` set, with `folds` (default 5), and the complete parameters."""
    values = params.load().model_dump()
    chosen = {**(row_settings(row)[0] if row else {}), **parse_settings(settings)}
    chosen["folds"] = chosen.get("folds", values["folds"]) or FOLDS
    return chosen, with_settings(values, {**chosen, "fold": 0})


def finished_folds(stem: str) -> str:
    """Summarize the experiments STEM-fold-0, STEM-fold-1, …

    Raises:
        LeafError: if an experiment is missing or the data differ between folds.
    """
    number = parameters(reader(f"{stem}-fold-0"))["folds"]
    found = []
    for fold in range(number):
        read = reader(f"{stem}-fold-{fold}")
        groups = table(read, "data/cleaned/decisions.csv")[["image", "group"]]
        found.append(table(read, PREDICTIONS).merge(groups, on="image"))
    return summarize(found)
