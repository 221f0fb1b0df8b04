"""Advice on what to try next: each entry has an observation, an action and a command.

Advice uses only validation scores and counts. Choosing settings by test scores would make test results optimistic.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from leaf.evaluate import BASELINES
from leaf.finished_run import Run
from leaf.report.charts import percent
from leaf.report.cleaning import flagged
from leaf.report.results import scored_split
from leaf.report.svg import plural

Advice = dict[str, str]

GAP = 0.08  # difference between training and validation accuracy that counts as overfitting
WIDE = 0.10  # interval width above which two settings cannot be distinguished
UNEQUAL = 0.15  # difference between two recalls
SIZES = (128, 160, 192, 224)  # pixels
_AUGMENTATIONS = {
    "augmentation.rotation": "augmentation.rotation=30",
    "augmentation.zoom": "augmentation.zoom=0.2",
    "augmentation.cutmix": "augmentation.cutmix=1",
}


def section(run: Run) -> list[Advice]:
    """Return at most six entries with different commands, starting with entries that question the result itself."""
    found = [entry for rule in _RULES if (entry := rule(run))]
    return list({entry["command"]: entry for entry in reversed(found)}.values())[::-1][:6]


def _validation(run: Run) -> Mapping[str, Any]:
    return (run.scores.get("splits") or {}).get("validation") or {}


def _advice(seen: str, do: str, command: str) -> Advice:
    return {"seen": seen, "do": do, "command": command}


def _conflicts(run: Run) -> Advice | None:
    count = len(run.conflicting_copies())
    if not count:
        return None
    return _advice(
        f"{plural(count, 'set')} of copies {'has' if count == 1 else 'have'} different labels.",
        "Decide on each with leaf review, or use the majority label.",
        "dvc exp run -S conflicts=majority",
    )


def _untested(run: Run) -> Advice | None:
    if scored_split(run.scores)[0] == "test":
        return None
    return _advice(
        "There is no test split: validation images selected the model, so its accuracy is optimistic.",
        "Hold out a test split.",
        "dvc exp run -S test_size=0.2",
    )


def _winning_baseline(run: Run) -> tuple[str, float, float] | None:
    """Return the best baseline's name and validation accuracy and the network's accuracy, if the baseline is better."""
    found = [(each.get("validation_accuracy"), key) for key, each in (run.scores.get("baseline") or {}).items()]
    known = [(value, key) for value, key in found if value is not None]
    accuracy = _validation(run).get("accuracy")
    if accuracy is None or not known or max(known)[0] < accuracy:
        return None
    return BASELINES[max(known)[1]], max(known)[0], accuracy


def _baseline(run: Run) -> Advice | None:
    best = _winning_baseline(run)
    if best is None:
        return None
    name, value, accuracy = best
    return _advice(
        f"On validation the {name} has {percent(value)} and the network {percent(accuracy)}: color alone is enough.",
        "Check whether background, light or file reveal the class.",
        "leaf audit",
    )


def _resolution(run: Run) -> Advice | None:
    if not {"width", "height"} <= set(run.index) or run.index.empty:
        return None
    side = int(run.index[["width", "height"]].astype(int).min(axis=1).median())
    size = max((each for each in SIZES if each <= side), default=0)
    if size < 1.3 * run.images.shape[1]:
        return None
    return _advice(
        f"The network sees {run.images.shape[1]} pixels, but half of the images have at least {side:,}.",
        "Train at a higher resolution: small symptoms become visible. The time grows with the number of pixels.",
        f"dvc exp run -S image_size={size}",
    )


def _pretrained(run: Run) -> Advice | None:
    if run.params.get("weights") != "random":
        return None
    return _advice(
        "The network was trained from scratch on these images only.",
        "Pretrained weights usually gain the most.",
        "leaf run transfer",
    )


def _wide(run: Run) -> Advice | None:
    name, block = scored_split(run.scores)
    groups, accuracy = int(block.get("groups") or block.get("images") or 0), _validation(run).get("accuracy")
    if not groups or accuracy is None:
        return None
    share = (accuracy * groups + 2) / (groups + 4)  # Agresti and Coull 1998
    width = 2 * 1.96 * math.sqrt(share * (1 - share) / (groups + 4))
    if width < WIDE:
        return None
    folded = bool(run.params.get("folds"))
    images = int(block.get("images") or groups)
    in_groups = f" in {plural(groups, 'group')}" if groups < images else ""
    return _advice(
        f"{plural(images, f'{name} image')}{in_groups} give a 95% interval about {100 * width:.0f} points wide: "
        "settings a few points apart cannot be distinguished.",
        "Summarize all folds." if folded else "Cross-validate: each image is tested once.",
        "leaf folds --show" if folded else "leaf folds",
    )


def _overfitting(run: Run) -> Advice | None:
    history, best = run.history, run.training.get("best_epoch")
    if not {"accuracy", "validation_accuracy"} <= set(history) or not best:  # a linear probe has no epochs
        return None
    row = history[history["epoch"] == best]
    train, validation = (float(row[key].max()) for key in ("accuracy", "validation_accuracy"))
    untried = [setting for key, setting in _AUGMENTATIONS.items() if not run.params.get(key)]
    if not train - validation > GAP or not untried:  # False for nan
        return None
    return _advice(
        f"At the best epoch, training accuracy is {percent(train)} and validation accuracy {percent(validation)}: "
        "the network overfits.",
        "Use more augmentation.",
        f"dvc exp run -S {' -S '.join(untried[:2])}",
    )


def _unfinished(run: Run) -> Advice | None:
    best, epochs = run.training.get("best_epoch"), len(run.history)
    if best is None or run.training.get("stopped") == "early" or epochs < 2 or best < epochs - 1:
        return None
    return _advice(
        f"The best epoch was {best} of {epochs}: training ended before it converged.",
        "Train for more epochs.",
        f"dvc exp run -S epochs={2 * epochs}",
    )


def _unequal(run: Run) -> Advice | None:
    matrix = _validation(run).get("confusion")
    if not matrix or not all(sum(row) for row in matrix):
        return None
    if len(matrix) > 2:
        return _confused(run)
    recalls = [row[label] / sum(row) for label, row in enumerate(matrix)]
    if abs(recalls[0] - recalls[1]) < UNEQUAL or run.params.get("threshold") == "validation":
        return None
    first, second = run.names
    return _advice(
        f"On validation the recall is {percent(recalls[0])} for {first} and {percent(recalls[1])} for {second}.",
        "Choose the threshold on validation.",
        "dvc exp run -S threshold=validation",
    )


def _confused(run: Run) -> Advice | None:
    pair = next(iter(_validation(run).get("worst_pairs") or []), None)
    if pair is None or pair["images"] < 2 or pair["share"] < UNEQUAL:
        return None
    label, predicted = (run.display(pair[key]) for key in ("label", "predicted"))
    return _advice(
        f"On validation {percent(pair['share'])} of the {label} images are predicted as {predicted}.",
        "Look for label errors first; if there are none, collect more images of both classes.",
        "leaf labels",
    )


def _miscalibrated(run: Run) -> Advice | None:
    block = _validation(run)
    error, limit = block.get("calibration_error"), block.get("calibration_error_limit")
    if error is None or limit is None or error <= limit or run.params.get("calibrate") == "temperature":
        return None
    return _advice(
        f"The calibration error on validation is {percent(error)}; 95% of perfectly calibrated models have at most "
        f"{percent(limit)}.",
        "Fit a temperature on validation.",
        "dvc exp run -S calibrate=temperature",
    )


def _poor_images(run: Run) -> Advice | None:
    flags = flagged(run.index)
    if not flags:
        return None
    words = ", ".join(f"{count:,} {flag}" for flag, count in flags.items())
    return _advice(
        f"Some images are of low quality: {words}.",
        "Look at them (column flags of data/ingested/index.csv); remove them with leaf review.",
        "",
    )


_RULES: tuple[Callable[[Run], Advice | None], ...] = (
    _conflicts,
    _untested,
    _baseline,
    _resolution,
    _pretrained,
    _wide,
    _overfitting,
    _unfinished,
    _unequal,
    _miscalibrated,
    _poor_images,
)
