"""What to try next, where the tables show a reason: each entry says what was seen and what to do about it."""

from collections.abc import Callable, Mapping
from typing import Any

from leaf.finished_run import Run
from leaf.report.charts import percent
from leaf.report.cleaning import flagged
from leaf.report.results import baselines, scored_split
from leaf.report.svg import plural

Advice = dict[str, str]

GAP = 0.08  # training above validation accuracy, from which memorising is worth fighting
UNSURE = 0.10  # width of the test interval, from which the estimate decides little
LOPSIDED = 0.15  # difference of the two classes' recalls
_VARIED = {  # what varies training images, none of it by default but flips
    "augmentation.rotation": "augmentation.rotation=30",
    "augmentation.zoom": "augmentation.zoom=0.2",
    "augmentation.cutmix": "augmentation.cutmix=1",
}


def section(run: Run, conflicting: int) -> list[Advice]:
    """At most six entries with different commands, those that question the result itself first."""
    found = [_conflicts(conflicting)] if conflicting else []
    found += [entry for rule in _RULES if (entry := rule(run))]
    return list({entry["command"]: entry for entry in reversed(found)}.values())[::-1][:6]


def _validation(run: Run) -> Mapping[str, Any]:
    """Return the validation scores. Advice that selects settings must not use test scores."""
    return (run.scores.get("splits") or {}).get("validation") or {}


def _conflicts(groups: int) -> Advice:
    return {
        "seen": f"{plural(groups, 'group')} of copies {'bears' if groups == 1 else 'bear'} different labels.",
        "do": "Look at them above and rule on each in data/overrides.csv, or let the majority decide.",
        "command": "dvc exp run -S conflicts=majority",
    }


def _baseline(run: Run) -> Advice | None:
    _, block = scored_split(run.scores)
    best = max(baselines(run.scores), key=lambda entry: entry.value, default=None)
    if best is None or block.get("accuracy_low") is None or block["accuracy_low"] > best.value:
        return None
    return {
        "seen": f"The interval begins at {percent(block['accuracy_low'])}; a baseline ({best.note}) reaches "
        f"{percent(best.value)}. The network is not shown to be better.",
        **(
            {"do": "Start from pretrained weights before anything else.", "command": "leaf run transfer"}
            if run.params.get("weights") == "random"
            else {
                "do": "It had pretrained weights: look for wrong labels first.",
                "command": "leaf labels",
            }
        ),
    }


def _untested(run: Run) -> Advice | None:
    if scored_split(run.scores)[0] == "test":
        return None
    return {
        "seen": "No images were kept for a test: the model was chosen by the same images that judge it here.",
        "do": "Hold some out; validation accuracy alone is too good.",
        "command": "dvc exp run -S test_size=0.2",
    }


def _wide(run: Run) -> Advice | None:
    name, block = scored_split(run.scores)
    low, high = block.get("accuracy_low"), block.get("accuracy_high")
    if low is None or high is None or high - low < UNSURE:
        return None
    return {
        "seen": f"The interval is {100 * (high - low):.0f} points wide on "
        f"{plural(int(block['images']), f'{name} image')}: two settings a few points apart cannot be told apart here.",
        **(
            {"do": "All folds together test every image once.", "command": "leaf folds --show"}
            if run.params.get("folds")
            else {"do": "Test every image once, in folds: a training each.", "command": "leaf folds"}
        ),
    }


def _memorised(run: Run) -> Advice | None:
    history, best = run.history, run.training.get("best_epoch")
    if not {"accuracy", "validation_accuracy"} <= set(history) or not best:  # 0: a linear probe, not by epochs
        return None
    row = history[history["epoch"] == best]
    if row.empty or not float(row["accuracy"].iloc[0]) - float(row["validation_accuracy"].iloc[0]) > GAP:
        return None
    train, validation = float(row["accuracy"].iloc[0]), float(row["validation_accuracy"].iloc[0])
    untried = [setting for key, setting in _VARIED.items() if not run.params.get(key)]
    if not untried:
        return None
    return {
        "seen": f"At the best epoch the network is right on {percent(train)} of its training images and on "
        f"{percent(validation)} of validation: it memorises.",
        "do": "Vary the training images more than this run did.",
        "command": f"dvc exp run -S {' -S '.join(untried[:2])}",
    }


def _unfinished(run: Run) -> Advice | None:
    best, epochs = run.training.get("best_epoch"), len(run.history)
    if best is None or run.training.get("stopped") == "early" or epochs < 2 or best < epochs - 1:
        return None
    return {
        "seen": f"The best epoch was {best} of {epochs}, and training ended because its epochs ran out.",
        "do": "Let it train on.",
        "command": f"dvc exp run -S epochs={2 * epochs}",
    }


def _lopsided(run: Run) -> Advice | None:
    matrix = _validation(run).get("confusion")
    if matrix and len(matrix) > 2:
        return _confused(run)
    if not matrix or not sum(matrix[0]) or not sum(matrix[1]):
        return None
    recalls = matrix[0][0] / sum(matrix[0]), matrix[1][1] / sum(matrix[1])
    if abs(recalls[0] - recalls[1]) < LOPSIDED or run.params.get("threshold") == "validation":
        return None
    first, second = run.classes
    return {
        "seen": f"Of the {first} images {percent(recalls[0])} are found, of the {second} {percent(recalls[1])}.",
        "do": "Choose the threshold on validation instead of taking it as given.",
        "command": "dvc exp run -S threshold=validation",
    }


def _confused(run: Run) -> Advice | None:
    """Of more than two classes: what is taken for what most often, where that is no rare slip."""
    pair = next(iter(_validation(run).get("worst_pairs") or []), None)
    if pair is None or pair["images"] < 2 or pair["share"] < LOPSIDED:
        return None
    return {
        "seen": f"{percent(pair['share'])} of the {pair['label']} images are called {pair['predicted']}.",
        "do": "Look for wrong labels first; if there are none, photograph more of both.",
        "command": "leaf labels",
    }


def _overconfident(run: Run) -> Advice | None:
    block = _validation(run)
    error, limit = block.get("calibration_error"), block.get("calibration_error_limit")
    if error is None or limit is None or error <= limit or run.params.get("calibrate") == "temperature":
        return None
    return {
        "seen": f"The calibration error on validation is {percent(error)}; 95% of perfectly calibrated models have at "
        f"most {percent(limit)}.",
        "do": "Fit a temperature on validation.",
        "command": "dvc exp run -S calibrate=temperature",
    }


def _random(run: Run) -> Advice | None:
    if run.params.get("weights") != "random":
        return None
    return {
        "seen": "The network learned from random weights, from these images alone.",
        "do": "A backbone that has seen a million other photographs usually gains most of all.",
        "command": "leaf run transfer",
    }


def _poor_images(run: Run) -> Advice | None:
    flags = flagged(run.index)
    if not flags:
        return None
    words = ", ".join(f"{count:,} {flag}" for flag, count in flags.items())
    return {
        "seen": f"Some images are marked at ingest: {words}.",
        "do": "Look at them (column flags of data/ingested/index.csv) and rule in data/overrides.csv.",
        "command": "",
    }


_RULES: tuple[Callable[[Run], Advice | None], ...] = (
    _untested,
    _baseline,
    _wide,
    _memorised,
    _unfinished,
    _random,
    _lopsided,
    _overconfident,
    _poor_images,
)
