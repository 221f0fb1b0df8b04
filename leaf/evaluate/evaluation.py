"""Compute the tables and metrics of the `evaluate` stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from leaf.errors import plural
from leaf.evaluate import BASELINES
from leaf.evaluate.baselines import baseline_probabilities
from leaf.evaluate.calibration import best_temperature
from leaf.evaluate.metrics import best_threshold, compute_metrics, predict, roc_curve, thinned, worst_pairs
from leaf.evaluate.selective import confidence, min_confidence, selective_metrics
from leaf.evaluate.statistics import proportion_interval

NO_TEST = (
    "No test split: the best epoch (and the threshold and temperature, if fitted) was selected on the validation "
    "images, so the metrics are optimistic. Set test_size for an unbiased estimate."
)
_GALLERY = 12  # maximum number of errors, and of uncertain images
_TEST_METRICS = (
    *("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_recall"),
    *("f1", "roc_auc", "log_loss", "calibration_error"),
)


@dataclass(frozen=True)
class Evaluation:
    """The outputs of the `evaluate` stage except the heatmaps. The attributes are named after the output files."""

    predictions: pd.DataFrame  # image,source,split,label,predicted,probability for validation and test images
    probabilities: np.ndarray  # float32 (N, C), aligned with `predictions`
    scores: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    roc: pd.DataFrame  # fpr,tpr on the scored split
    answers: pd.DataFrame  # label,predicted as class names, on the scored split
    gallery: pd.DataFrame  # row,image,split,kind,shown

    @property
    def summary(self) -> str:
        """A few lines of text: the accuracy with its confidence interval, the baselines and, if they apply, notes."""
        splits, note = self.scores["splits"], self.scores["note"]
        name, block = ("test", splits["test"]) if splits["test"] else ("validation", splits["validation"])
        beside = (f"{BASELINES[key]} {each['accuracy']:.1%}" for key, each in self.scores["baseline"].items())
        lines = [
            f"{name}: accuracy {block['accuracy']:.1%} (95% CI {100 * block['accuracy_low']:.1f}–"
            f"{block['accuracy_high']:.1%}) on {plural(block['images'], 'image')}"
            + (f" in {plural(block['groups'], 'group')}" if block["groups"] < block["images"] else "")
            + (f", threshold {self.scores['threshold']:.3f}" if len(block["classes"]) == 2 else ""),
            f"baselines: {', '.join(beside)}",
        ]
        if len(block["classes"]) > 2 and block["worst_pairs"]:
            pairs = (f"{each['images']} {each['label']} as {each['predicted']}" for each in block["worst_pairs"][:3])
            lines.append(f"most frequent errors: {', '.join(pairs)}")
        if before := block["before_calibration"]:
            lines.append(
                f"temperature {self.scores['temperature']:.2f}: expected calibration error "
                f"{before['calibration_error']:.3f} before, {block['calibration_error']:.3f} after; a perfectly "
                f"calibrated model has {block['calibration_error_null']:.3f} on these images"
            )
        return "\n".join([*lines, note] if note else lines)


def evaluate(
    images: np.ndarray,
    table: pd.DataFrame,
    predict_proba: Callable[[np.ndarray, float], np.ndarray],
    classes: Sequence[str],
    threshold: float | Literal["validation"],
    calibrate: Literal["none", "temperature"],
    error_rate: float = 0.0,
    note: str = "",
) -> Evaluation:
    """Evaluate a model and the baselines on the validation split and, if there is one, on the test split.

    Args:
        images: (N, H, W, 3), used only by the baselines.
        table: columns `image,split,label,source,group`, with one row per kept image. `image` is an index into
            `images`, and `label` is an index into `classes`.
        predict_proba: function that maps N rows of the images and a temperature to probabilities, float64 (N, C).
        classes: class names.
        threshold: decision threshold for two classes, or `validation` to select it on the validation split; 0.5 for
            more classes.
        calibrate: `temperature` to fit a temperature on the validation split, or `none`.
        error_rate: maximum share of misclassified images; see `min_confidence`.
        note: text to append to the note in the scores.
    """
    table = table.sort_values("image")
    parts = {name: table[table["split"].eq(name)] for name in ("train", "validation", "test")}
    held_out = {name: parts[name] for name in ("test", "validation") if len(parts[name])}
    labels = {name: part["label"].to_numpy() for name, part in held_out.items()}
    probabilities = {name: predict_proba(part["image"].to_numpy(), 1.0) for name, part in held_out.items()}
    temperature, before = 1.0, None
    if calibrate == "temperature":
        before = probabilities
        temperature = best_temperature(labels["validation"], before["validation"])
        probabilities = {name: predict_proba(part["image"].to_numpy(), temperature) for name, part in held_out.items()}
    chosen = threshold == "validation"
    cut = best_threshold(labels["validation"], probabilities["validation"][:, 1]) if chosen else float(threshold)

    scored_split = "test" if "test" in held_out else "validation"
    predictions = {name: _predictions(part, probabilities[name], cut) for name, part in held_out.items()}
    groups = {name: part["group"].to_numpy() for name, part in held_out.items()}
    correct = {name: part["predicted"].eq(part["label"]).to_numpy() for name, part in predictions.items()}
    certain = {name: confidence(part, cut) for name, part in probabilities.items()}
    limit = min_confidence(correct["validation"], certain["validation"], error_rate)
    blocks = {}
    for name in held_out:
        block = _block(labels[name], probabilities[name], cut, classes, groups[name])
        block["before_calibration"] = None
        if before:
            uncalibrated = compute_metrics(labels[name], before[name], 0.5)
            block["before_calibration"] = {key: uncalibrated[key] for key in ("log_loss", "calibration_error")}
        block["selective"] = selective_metrics(correct[name], certain[name] >= limit, groups[name])
        blocks[name] = block
    scores = {
        "classes": list(classes),
        "threshold": cut,
        "threshold_source": "validation" if chosen else "given",
        "temperature": temperature,
        "error_rate": error_rate,
        "min_confidence": limit,
        "splits": {"validation": blocks["validation"], "test": blocks.get("test")},
        "baseline": _baselines(images, parts, held_out[scored_split], classes),
        "by_folder": _by_folder(predictions[scored_split].assign(group=groups[scored_split])),
        "note": " ".join(filter(None, ["" if scored_split == "test" else NO_TEST, note])),
    }
    together = pd.concat(predictions.values(), ignore_index=True)
    order = np.argsort(together["image"].to_numpy(), kind="stable")
    names, judged = np.array(classes, object), predictions[scored_split]
    return Evaluation(
        predictions=together.iloc[order].reset_index(drop=True),
        probabilities=np.concatenate(list(probabilities.values()))[order].astype(np.float32),
        scores=scores,
        metrics=_metrics(scores),
        roc=_roc(labels[scored_split], probabilities[scored_split]),
        answers=pd.DataFrame({"label": names[judged["label"]], "predicted": names[judged["predicted"]]}),
        gallery=_gallery(predictions[scored_split], probabilities[scored_split], cut),
    )


def _predictions(part: pd.DataFrame, probabilities: np.ndarray, threshold: float) -> pd.DataFrame:
    """Return a table of predictions.

    The column `probability` refers to the second of two classes or, with more classes, to the predicted class.
    """
    predicted = predict(probabilities, threshold)
    shown = np.ones_like(predicted) if probabilities.shape[1] == 2 else predicted
    table = part[["image", "source", "split", "label"]].reset_index(drop=True)
    return table.assign(predicted=predicted, probability=probabilities[np.arange(len(table)), shown])


def _block(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, classes: Sequence[str], groups: np.ndarray
) -> dict[str, Any]:
    """Return the metrics, with class names, and the most frequent errors."""
    block = compute_metrics(labels, probabilities, threshold, groups)
    named = [{"name": name, **each} for name, each in zip(classes, block["classes"], strict=True)]
    return {**block, "classes": named, "worst_pairs": worst_pairs(block["confusion"], classes)}


def _baselines(
    images: np.ndarray, parts: dict[str, pd.DataFrame], scored: pd.DataFrame, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    train, validation = (
        (parts[key]["image"].to_numpy(), parts[key]["label"].to_numpy()) for key in ("train", "validation")
    )
    found, selected = baseline_probabilities(images, train, validation, scored["image"].to_numpy())
    labels, groups = scored["label"].to_numpy(), scored["group"].to_numpy()
    blocks = {}
    for name, (on_validation, on_scored) in found.items():
        right = predict(on_validation, 0.5) == validation[1]
        blocks[name] = _block(labels, on_scored, 0.5, classes, groups) | {"validation_accuracy": float(right.mean())}
    blocks["tuned_color"]["model"] = selected
    return blocks


def _metrics(scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    test = scores["splits"]["test"] or {}
    validation, baseline = scores["splits"]["validation"], scores["baseline"]
    found = {each["name"]: each["recall"] for each in test.get("classes", [])}
    recall = {name: found.get(name) for name in scores["classes"]}
    return {
        "test": {key: test.get(key) for key in _TEST_METRICS} | {"recall": recall},
        "validation": {key: validation[key] for key in ("accuracy", "roc_auc")},
        "baseline": {f"{name}_accuracy": block["accuracy"] for name, block in baseline.items()},
    }


def _roc(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the columns `fpr,tpr` for the second of two classes or, for more classes, the mean one-vs-rest curve."""
    if probabilities.shape[1] == 2:
        fpr, tpr, _ = roc_curve(labels, probabilities[:, 1])
    else:
        curves = [roc_curve((labels == label).astype(int), probabilities[:, label])[:2] for label in np.unique(labels)]
        fpr = np.unique(np.concatenate([false for false, _ in curves]))
        tpr = np.append(0, np.mean([np.interp(fpr, *curve) for curve in curves], axis=0))
        fpr = np.append(0, fpr)
    return pd.DataFrame({"fpr": thinned(fpr), "tpr": thinned(tpr)})


def _gallery(predictions: pd.DataFrame, probabilities: np.ndarray, threshold: float) -> pd.DataFrame:
    """Select the most confident errors and the least certain other images for the gallery.

    Each error has a row with the predicted class and one with the runner-up class.
    """
    ascending = np.sort(probabilities, axis=1)
    two = probabilities.shape[1] == 2
    masked = np.where(np.eye(probabilities.shape[1])[predictions["predicted"]] == 1, -1.0, probabilities)
    ranked = predictions.assign(
        shown=predictions["predicted"],
        next=masked.argmax(axis=1),
        confidence=probabilities[np.arange(len(predictions)), predictions["predicted"]],
        gap=np.abs(probabilities[:, 1] - threshold) if two else ascending[:, -1] - ascending[:, -2],
    )
    wrong = ranked[ranked["predicted"].ne(ranked["label"])]
    mistakes = wrong.sort_values(["confidence", "image"], ascending=[False, True]).head(_GALLERY)
    others = ranked.drop(mistakes.index).sort_values(["gap", "image"]).head(_GALLERY)
    parts = {"mistake": mistakes, "uncertain": others, "runner_up": mistakes.assign(shown=mistakes["next"])}
    chosen = pd.concat([part.assign(kind=kind) for kind, part in parts.items()], ignore_index=True)
    chosen.insert(0, "row", np.arange(len(chosen)))
    return chosen[["row", "image", "split", "kind", "shown"]]


def _by_folder(predictions: pd.DataFrame) -> list[dict[str, object]]:
    """Return the accuracy and its interval for each source folder, or an empty list if there is only one folder."""
    folders = predictions["source"].astype(str).str.rpartition("/")[0].to_numpy()
    if len(set(folders)) < 2:
        return []
    rows = []
    for folder, part in predictions.groupby(folders):
        right = part["predicted"].eq(part["label"]).to_numpy()
        low, high = proportion_interval(right, part["group"].to_numpy())
        rows.append({"folder": folder, "images": len(part), "accuracy": right.mean(), "low": low, "high": high})
    return rows
