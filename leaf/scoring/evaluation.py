"""From a network's probabilities to every table of the stage evaluate; the network itself is only a function here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from leaf.scoring.baselines import baseline_probabilities
from leaf.scoring.calibration import best_temperature
from leaf.scoring.metrics import best_threshold, compute_metrics, predict, roc_curve, wilson

PredictProba = Callable[[np.ndarray, float], np.ndarray]
"""Rows of images and a temperature in, probabilities of class 1 out, float64."""

NO_TEST = (
    "No test split: the validation images chose the best epoch (and the threshold and temperature where these are "
    "fitted), so their figures flatter the model. Set test_size for an honest estimate."
)
_TEST_METRICS = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "f1",
    "roc_auc",
    "log_loss",
    "calibration_error",
)


@dataclass(frozen=True)
class Evaluation:
    """Everything that evaluate writes beside the heat maps; the columns and keys are those of the files."""

    predictions: pd.DataFrame
    scores: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    roc: pd.DataFrame
    gallery: pd.DataFrame
    scored_split: Literal["test", "validation"]

    @property
    def summary(self) -> str:
        """The accuracy with its interval, beside the baselines, in a few lines."""
        block, baseline = self.scores["splits"][self.scored_split], self.scores["baseline"]
        before = block["before_calibration"]
        lines = [
            f"{self.scored_split}: accuracy {block['accuracy']:.3f} (95 %: {block['accuracy_low']:.3f} to "
            f"{block['accuracy_high']:.3f}) on {block['images']} images, threshold {self.scores['threshold']:.3f}",
            "baselines: " + ", ".join(f"{name} {scores['accuracy']:.3f}" for name, scores in baseline.items()),
        ]
        if before:
            lines.append(
                f"temperature {self.scores['temperature']:.2f}: expected calibration error "
                f"{before['calibration_error']:.3f} before, {block['calibration_error']:.3f} after"
            )
        return "\n".join([*lines, self.scores["note"]] if self.scores["note"] else lines)


def evaluate(
    images: np.ndarray,
    table: pd.DataFrame,
    predict_proba: PredictProba,
    threshold: float | Literal["validation"],
    calibrate: Literal["none", "temperature"],
) -> Evaluation:
    """Score a network on validation and test beside the baselines.

    `images`: (N, H, W, 3), read only by the baselines. `table`: `image,split,label,source` of the kept images, `image`
    a row of `images`. `predict_proba` is the network. Threshold and temperature are chosen on validation alone, where
    they are not given. Without a test split the baselines are scored on validation, as the network then is.
    """
    table = table.sort_values("image")
    present = [name for name in ("test", "validation") if table["split"].eq(name).any()]
    held_out = {name: table[table["split"].eq(name)] for name in present}
    validation = held_out["validation"]
    labels = validation["label"].to_numpy()
    probabilities = {name: predict_proba(part["image"].to_numpy(), 1.0) for name, part in held_out.items()}
    temperature, before = 1.0, None
    if calibrate == "temperature":
        before = probabilities
        temperature = best_temperature(labels, before["validation"])
        probabilities = {name: predict_proba(part["image"].to_numpy(), temperature) for name, part in held_out.items()}
    cut = best_threshold(labels, probabilities["validation"]) if threshold == "validation" else float(threshold)

    scored_split: Literal["test", "validation"] = "test" if "test" in held_out else "validation"
    predictions = {name: _predictions(held_out[name], probabilities[name], cut) for name in present}
    blocks = {
        name: compute_metrics(part["label"].to_numpy(), part["probability"].to_numpy(), cut)
        for name, part in predictions.items()
    }
    for name, block in blocks.items():
        block["before_calibration"] = _before(held_out[name]["label"].to_numpy(), before[name]) if before else None
    scored = predictions[scored_split]
    baseline = _baselines(images, table[table["split"].eq("train")], scored)
    sources = table.set_index("image")["source"].loc[scored["image"]].astype(str)
    scores = {
        "threshold": cut,
        "threshold_source": "validation" if threshold == "validation" else "given",
        "temperature": temperature,
        "splits": {"validation": blocks["validation"], "test": blocks.get("test")},
        "baseline": baseline,
        "by_folder": by_folder(scored, sources),
        "note": "" if scored_split == "test" else NO_TEST,
    }
    return Evaluation(
        predictions=pd.concat(predictions.values()).sort_values("image", ignore_index=True),
        scores=scores,
        metrics=_metrics(scores),
        roc=pd.concat([_roc(name, part) for name, part in predictions.items()], ignore_index=True),
        gallery=gallery(scored, cut),
        scored_split=scored_split,
    )


def _predictions(part: pd.DataFrame, probabilities: np.ndarray, threshold: float) -> pd.DataFrame:
    table = part[["image", "split", "label"]].reset_index(drop=True)
    return table.assign(probability=probabilities, predicted=predict(probabilities, threshold))


def _before(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """What a temperature is there to lower, at temperature 1."""
    block = compute_metrics(labels, probabilities, 0.5)
    return {key: block[key] for key in ("log_loss", "calibration_error")}


def _baselines(images: np.ndarray, train: pd.DataFrame, scored: pd.DataFrame) -> dict[str, dict[str, Any]]:
    found = baseline_probabilities(
        images, train["image"].to_numpy(), train["label"].to_numpy(), scored["image"].to_numpy()
    )
    labels = scored["label"].to_numpy()
    return {name: compute_metrics(labels, probabilities, 0.5) for name, probabilities in found.items()}


def _metrics(scores: dict[str, Any]) -> dict[str, dict[str, float]]:
    test = scores["splits"]["test"] or {}
    validation, baseline = scores["splits"]["validation"], scores["baseline"]
    return {
        "test": {key: test.get(key) for key in _TEST_METRICS},
        "validation": {key: validation[key] for key in ("accuracy", "roc_auc")},
        "baseline": {f"{name}_accuracy": baseline[name]["accuracy"] for name in ("majority", "histogram")},
    }


def _roc(split: str, predictions: pd.DataFrame) -> pd.DataFrame:
    fpr, tpr, thresholds = roc_curve(predictions["label"].to_numpy(), predictions["probability"].to_numpy())
    return pd.DataFrame({"split": split, "fpr": fpr, "tpr": tpr, "threshold": thresholds})


def gallery(predictions: pd.DataFrame, threshold: float, most: int = 12) -> pd.DataFrame:
    """The worst mistakes, most confident first, then the least certain of the other images: `row,image,split,kind`.

    `predictions`: `image,split,label,probability,predicted` of one split. Up to `most` of each kind; equals by image.
    """
    p = predictions["probability"]
    ranked = predictions.assign(
        confidence=np.where(predictions["predicted"].eq(1), p, 1 - p), gap=(p - threshold).abs()
    )
    wrong = ranked[ranked["predicted"].ne(ranked["label"])]
    mistakes = wrong.sort_values(["confidence", "image"], ascending=[False, True]).head(most)
    others = ranked.drop(mistakes.index).sort_values(["gap", "image"]).head(most)
    chosen = pd.concat([mistakes.assign(kind="mistake"), others.assign(kind="uncertain")], ignore_index=True)
    chosen.insert(0, "row", np.arange(len(chosen)))
    return chosen[["row", "image", "split", "kind"]]


def by_folder(predictions: pd.DataFrame, sources: pd.Series) -> list[dict[str, object]]:
    """Accuracy with its interval in each folder that the images came from; nothing where there is only one.

    `sources`: where each row of `predictions` came from, a path with slashes, or a number for an .npz.
    """
    folders = sources.str.rpartition("/")[0].to_numpy()
    if len(set(folders)) < 2:
        return []
    right = predictions["predicted"].eq(predictions["label"]).to_numpy()
    table = pd.DataFrame({"folder": folders, "right": right}).groupby("folder")["right"].agg(["size", "sum"])
    rows = []
    for folder, (images, hits) in zip(table.index, table.to_numpy().tolist(), strict=True):
        low, high = wilson(hits, images)
        rows.append({"folder": folder, "images": images, "accuracy": hits / images, "low": low, "high": high})
    return rows
