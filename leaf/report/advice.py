"""Suggest what to try next, based on a run's validation scores and image counts.

Test scores are not used: choosing settings by them would make the test results optimistic.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from leaf.errors import plural
from leaf.evaluate import BASELINES
from leaf.finished_run import Run
from leaf.models.backbones import recommended_size
from leaf.report.gallery import flagged
from leaf.report.results import NO_TEST, scored_split

GAP = 0.08  # minimum difference between training and validation accuracy at which overfitting is reported
WIDE = 0.10  # minimum width of the confidence interval at which cross-validation is suggested
UNEQUAL = 0.15  # minimum difference between the recalls of two classes that is reported
_AUGMENTATIONS = ("augmentation.rotation=30", "augmentation.zoom=0.2", "augmentation.cutmix=1")


class Advice(NamedTuple):
    """An observation, a suggested action, and the command to run or ""."""

    observation: str
    action: str
    command: str


def section(run: Run) -> list[Advice]:
    """Return at most six suggestions; those that question the result come first."""
    return [entry for rule in _RULES for entry in rule(run)][:6]


def _validation(run: Run) -> Mapping[str, Any]:
    return run.scores["splits"]["validation"]


def _conflicts(run: Run) -> Iterator[Advice]:
    if count := len(run.conflicting_copies()):
        yield Advice(
            f"{plural(count, 'set')} of copies {'has' if count == 1 else 'have'} different labels.",
            "Resolve each conflict with leaf review, or use the majority label.",
            "dvc exp run -S conflicts=majority",
        )


def _untested(run: Run) -> Iterator[Advice]:
    if scored_split(run.scores)[0] != "test":
        yield Advice(NO_TEST, "Hold out a test split.", "dvc exp run -S test_size=0.2")


def _baseline(run: Run) -> Iterator[Advice]:
    best, key = max((each["validation_accuracy"], key) for key, each in run.scores["baseline"].items())
    accuracy = _validation(run)["accuracy"]
    if best >= accuracy:
        yield Advice(
            f"On the validation split, the network reaches {accuracy:.1%} and a simple baseline ({BASELINES[key]}) "
            f"{best:.1%}.",
            "Check whether the background, the lighting or the file metadata reveals the class.",
            "leaf audit",
        )


def _resolution(run: Run) -> Iterator[Advice]:
    side = int(run.index[["width", "height"]].min(axis=1).median())
    if size := recommended_size(side, run.images.shape[1]):
        yield Advice(
            f"The network input is {run.images.shape[1]} pixels wide, but half of the originals have at least {side:,} "
            "pixels on each side.",
            "Train at a higher resolution, so that small symptoms stay visible. Training time grows with the number of "
            "pixels.",
            f"dvc exp run -S image_size={size}",
        )


def _pretrained(run: Run) -> Iterator[Advice]:
    if run.params["weights"] == "random":
        yield Advice(
            "The network was trained from scratch on these images only.",
            "Use pretrained weights, which usually help more than any other change.",
            "leaf run transfer",
        )


def _wide(run: Run) -> Iterator[Advice]:
    name, block = scored_split(run.scores)
    images, groups = block["images"], block["groups"]
    share = (_validation(run)["accuracy"] * groups + 2) / (groups + 4)  # center of the Agresti–Coull interval (1998)
    width = 2 * 1.96 * math.sqrt(share * (1 - share) / (groups + 4))
    if width < WIDE:
        return
    folded = run.params["folds"]
    in_groups = f" in {plural(groups, 'group')}" if groups < images else ""
    yield Advice(
        f"With {plural(images, f'{name} image')}{in_groups}, the 95% confidence interval is about "
        f"{100 * width:.0f} points wide, so settings that differ by a few points cannot be distinguished.",
        "Summarize all folds." if folded else "Use cross-validation, which tests every image once.",
        "leaf folds --show" if folded else "leaf folds",
    )


def _epochs(run: Run) -> Iterator[Advice]:
    if "probe" in run.training:  # it has no epochs
        return
    best, epochs = run.training["best_epoch"], len(run.history)
    at_best = run.history.set_index("epoch").loc[best]
    train, validation = at_best["accuracy"], at_best["validation_accuracy"]
    untried = [setting for setting in _AUGMENTATIONS if not run.params[setting.partition("=")[0]]]
    if train - validation > GAP and untried:  # false if either is nan
        yield Advice(
            f"At the best epoch, training accuracy is {train:.1%} and validation accuracy {validation:.1%}: "
            "the network overfits.",
            "Use stronger augmentation.",
            f"dvc exp run -S {' -S '.join(untried[:2])}",
        )
    if run.training["stopped"] != "early" and best >= epochs - 1 > 0:
        yield Advice(
            f"The best epoch was {best} of {epochs}: training stopped before it converged.",
            "Train for more epochs.",
            f"dvc exp run -S epochs={2 * epochs}",
        )


def _unequal(run: Run) -> Iterator[Advice]:
    block = _validation(run)
    matrix = block["confusion"]
    if not all(sum(row) for row in matrix):
        return
    if len(matrix) > 2:
        for pair in block["worst_pairs"][:1]:
            if pair["images"] > 1 and pair["share"] >= UNEQUAL:
                label, predicted = (run.display(pair[key]) for key in ("label", "predicted"))
                yield Advice(
                    f"On the validation split, {pair['share']:.1%} of the {label} images are predicted as {predicted}.",
                    "Look for label errors first. If there are none, collect more images of both classes.",
                    "leaf labels",
                )
        return
    recalls = [row[label] / sum(row) for label, row in enumerate(matrix)]
    if abs(recalls[0] - recalls[1]) >= UNEQUAL and run.params["threshold"] != "validation":
        first, second = (f"{recall:.1%} for {name}" for recall, name in zip(recalls, run.names, strict=True))
        yield Advice(
            f"On the validation split, the recall is {first} and {second}.",
            "Select the threshold on the validation split.",
            "dvc exp run -S threshold=validation",
        )


def _miscalibrated(run: Run) -> Iterator[Advice]:
    error, limit = (_validation(run)[f"calibration_error{end}"] for end in ("", "_limit"))
    if error > limit and run.params["calibrate"] != "temperature":
        yield Advice(
            f"The calibration error on validation is {error:.1%}. Only 5% of perfectly calibrated models exceed "
            f"{limit:.1%}.",
            "Use temperature scaling, fitted on the validation split.",
            "dvc exp run -S calibrate=temperature",
        )


def _poor_images(run: Run) -> Iterator[Advice]:
    if flags := flagged(run.index):
        yield Advice(
            f"Some images have quality flags: {', '.join(f'{count:,} {flag}' for flag, count in flags.items())}.",
            "Inspect them (column flags in data/ingested/index.csv), and remove bad ones with leaf review.",
            "",
        )


_RULES: tuple[Callable[[Run], Iterator[Advice]], ...] = (
    *(_conflicts, _untested, _baseline, _resolution, _pretrained),
    *(_wide, _epochs, _unequal, _miscalibrated, _poor_images),
)
