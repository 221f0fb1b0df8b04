"""Select the images to review from a run's tables, and rank them.

Cases are ranked by expected gain: the probability that a decision changes something, times the number of images it
affects. For labels, the probability is estimated from held-out predictions; for other questions, it is fixed. A
decision on an image affects its kept copies and the SMOTE images interpolated from it, weighted by its share in them.
`benchmarks/review.py` measures how early planted errors are found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaf.clean.decisions import Overrides
from leaf.errors import plural
from leaf.evaluate import baselines
from leaf.evaluate.label_issues import suspicious
from leaf.review.decision_files import Row

QUESTIONS = {  # names of the questions on the page
    "conflict": "Copies with different labels",
    "label": "Label and prediction differ",
    "flag": "Quality flag, or unlike the training images",
    "outlier": "Removed as an outlier",
    "copy": "Removed as a near duplicate",
    "crop": "Crops of one photo?",
}
# Estimated probability that a decision changes something. If copies have different labels, at least one is wrong.
# Removals by `clean` are rarely wrong, and all copies of an outlier form one case.
SHARE = {"conflict": 1.0, "flag": 0.5, "outlier": 0.02, "copy": 0.05, "crop": 0.1}
CONFIDENT = 0.1  # below this probability of the label, the held-out prediction confidently contradicts the label


@dataclass(frozen=True)
class LabelAssessment:
    """Held-out predictions of N images compared with their labels."""

    own: np.ndarray  # float64 (N,), probability of the label, or nan without a prediction
    likely: np.ndarray  # int64 (N,), most probable class
    contradicted: np.ndarray  # bool (N,), True for likely label errors (confident learning)


def class_probabilities(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return out-of-fold probabilities, float64 (N, K), from logistic regression in up to five grouped folds.

    `features` are (N, D), `labels` int (N,) of K classes, and `groups` (N,). All probabilities are nan if there
    is a single class, or a class with a single group.
    """
    classes, places = np.unique(labels, return_inverse=True)
    folds = min([5, *(len(np.unique(groups[places == place])) for place in range(len(classes)))])
    if folds < 2 or len(classes) < 2:
        return np.full((len(labels), len(classes)), np.nan)
    return baselines.held_out("held", features, places, groups, folds)


def assess_labels(labels: np.ndarray, probabilities: np.ndarray) -> LabelAssessment:
    """Compare `labels` int (N,) with held-out `probabilities` float64 (N, K), nan in rows without a prediction."""
    predicted = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    own, likely = np.full(len(labels), np.nan), labels.astype(np.int64)
    contradicted = np.zeros(len(labels), bool)
    own[predicted] = probabilities[predicted, labels[predicted]]
    likely[predicted] = probabilities[predicted].argmax(axis=1)
    classes, places = np.unique(labels[predicted], return_inverse=True)
    if len(classes) > 1:
        shares = probabilities[predicted][:, classes]
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        contradicted[predicted[suspicious(places, shares)[0]]] = True
    return LabelAssessment(own, likely, contradicted)


def reach(hashes: np.ndarray, kept: np.ndarray, synthetic: pd.DataFrame | None) -> np.ndarray:
    """Return the number of images that a decision on each of N images affects, float64 (N,).

    Exact copies have equal `hashes`, str (N,); `kept` is bool (N,). `synthetic` has a row per synthetic image with the
    columns `parent`, `neighbour` and `weight`, the neighbor's share.
    """
    copies = pd.Series(kept.astype(float)).groupby(hashes).transform("sum").to_numpy().copy()
    if synthetic is not None:
        weight = synthetic["weight"].to_numpy(float)
        for column, share in (("parent", 1 - weight), ("neighbour", weight)):
            copies += np.bincount(synthetic[column].astype(int), share, len(hashes))
    return copies


def cases(
    index: pd.DataFrame,
    decisions: pd.DataFrame,
    pairs: pd.DataFrame,
    held_out: LabelAssessment,
    unknown: np.ndarray,
    reached: np.ndarray,
    classes: Sequence[str],
) -> pd.DataFrame:
    """Return the cases, highest gain first: `question,image,other,gain,why`; `other` is -1 for a single image.

    Copies form one case, represented by the first kept copy, or by the first copy if none is kept.

    Args:
        index: data/ingested/index.csv, N rows.
        decisions: data/cleaned/decisions.csv, N rows.
        pairs: data/cleaned/pairs.csv.
        held_out: see `assess_labels`.
        unknown: bool (N,), True for out-of-distribution images.
        reached: float (N,), see `reach`.
        classes: class names.
    """
    single = [*_labels(decisions, held_out, reached, classes), *_flags(index, decisions, unknown, reached)]
    others = [*_outliers(index, decisions), *_pairs(decisions, pairs, classes)]
    tables = [pd.DataFrame(found, columns=_COLUMNS) for found in (single, others)]
    table = pd.concat([_merged(tables[0], index["hash"].to_numpy()), tables[1]], ignore_index=True)
    table = table.astype({"image": int, "other": int, "gain": float})
    return table.sort_values(["gain", "image"], ascending=[False, True], kind="stable", ignore_index=True)


_COLUMNS = ["question", "image", "other", "gain", "why"]
_Case = tuple[str, int, int, float, str]


def _labels(
    decisions: pd.DataFrame, held_out: LabelAssessment, reached: np.ndarray, classes: Sequence[str]
) -> list[_Case]:
    """Return a case for each kept image with a likely label error or a different held-out prediction."""
    labels = decisions["label"].to_numpy()
    doubted = decisions["kept"].eq(1).to_numpy() & (held_out.contradicted | (held_out.likely != labels))
    found = []
    for image in np.flatnonzero(doubted).tolist():
        own = float(held_out.own[image])
        label, likely = classes[labels[image]], classes[held_out.likely[image]]
        how = "a wrong label, or a confident model error" if own < CONFIDENT else "the label may be wrong"
        why = f"held-out probability of {label}: {own:.3f}; most probable: {likely}; {how}"
        share = 1 if held_out.contradicted[image] else 0.5  # halve the gain unless the label is a likely error
        found.append(("label", image, -1, (1 - own) * reached[image] * share, why))
    return found


def _flags(index: pd.DataFrame, decisions: pd.DataFrame, unknown: np.ndarray, reached: np.ndarray) -> list[_Case]:
    """Return a case for each kept image that has a quality flag or is out-of-distribution."""
    flags = index["flags"].to_numpy(object)
    there = decisions["kept"].eq(1).to_numpy() & ((flags != "") | unknown)
    found = []
    for image in np.flatnonzero(there).tolist():
        words = [*flags[image].split(), *["unlike the training images"] * bool(unknown[image])]
        found.append(("flag", image, -1, SHARE["flag"] * reached[image], ", ".join(words)))
    return found


def _merged(single: pd.DataFrame, hashes: np.ndarray) -> pd.DataFrame:
    """Merge the cases of each image and its copies: keep the top question, add up the gains, and join the reasons."""
    if single.empty:
        return single
    single = single.assign(hash=hashes[single["image"]]).sort_values("gain", ascending=False, kind="stable")
    first_image = single.groupby("hash")["image"].min()
    # all copies have the same reasons, so sum over questions, not over copies
    strongest = single.drop_duplicates(["hash", "question"]).groupby("hash", sort=False)
    merged = strongest.agg({"question": "first", "gain": "sum", "why": "; ".join})
    return merged.assign(image=first_image, other=-1).reset_index(drop=True)[_COLUMNS]


def _outliers(index: pd.DataFrame, decisions: pd.DataFrame) -> list[_Case]:
    """Return one case per removed outlier, with the number of its copies."""
    out = decisions[decisions["reason"].eq("outlier")]
    found: list[_Case] = []
    for _, copies in out.groupby(index["hash"].to_numpy()[out["image"]], sort=False):
        row = copies.to_dict("records")[0]
        reference = str(row["reference"])
        other = int(reference) if reference.isdecimal() and int(reference) != row["image"] else -1
        why = f"{plural(len(copies), 'image')}, mean squared error {row['distance']:.4g} from reference {reference}"
        found.append(("outlier", row["image"], other, SHARE["outlier"] * len(copies), why))
    return found


def _pairs(decisions: pd.DataFrame, pairs: pd.DataFrame, classes: Sequence[str]) -> list[_Case]:
    """Return a case per group with different labels, and a case per remaining pair of near duplicates or crops."""
    inside = decisions["reason"].ne("outlier").to_numpy()
    label, group = decisions["label"].to_numpy(), decisions["group"].to_numpy()
    pairs = pairs[inside[pairs["image"]] & inside[pairs["other"]]]
    differ = label[pairs["image"]] != label[pairs["other"]]
    sizes = np.bincount(group[inside], minlength=len(decisions))
    found: list[_Case] = []
    conflicts = pairs[differ].assign(group=group[pairs["image"][differ]]).drop_duplicates("group")
    for row in conflicts.to_dict("records"):
        one, other = int(row["image"]), int(row["other"])
        why = f"{_kind(row)}; {classes[label[one]]} and {classes[label[other]]}"
        found.append(("conflict", one, other, SHARE["conflict"] * int(sizes[group[one]]), why))
    same = pairs[~differ & pairs["kind"].ne("exact")]
    # the larger the distance, the more likely a false match
    doubt = same["aligned_mse"].fillna(same["mse"]).groupby(same["kind"]).rank(pct=True)
    for row, rank in zip(same.to_dict("records"), doubt, strict=True):
        question = "crop" if row["kind"] == "aligned" else "copy"
        found.append((question, int(row["other"]), int(row["image"]), SHARE[question] * float(rank), _kind(row)))
    return found


def _kind(row: dict) -> str:
    if row["kind"] == "exact":
        return "exact copies"
    if row["kind"] == "aligned":
        return f"crops of one photo: mean squared error {row['aligned_mse']:.3g} after alignment, {row['transform']}"
    turned = f", {row['transform']}" if row["kind"] == "turned" else ""
    return f"near duplicates: mean squared error {row['mse']:.3g}{turned}"


def answers(
    table: pd.DataFrame, hashes: Sequence[str], overrides: Overrides, classes: Sequence[str], reviewed: Sequence[Row]
) -> list[str]:
    """Return the decision on each case of `table`: an override (`relabel healthy`), `seen`, `unsure`, or "" for none.

    A decision on an image applies to every question about it. `hashes` are the pixel hashes of the N images, and
    `reviewed` is data/reviewed.csv from `leaf.review.decision_files.resolved`.
    """
    images = {
        **dict.fromkeys(overrides.keep, "keep"),
        **{image: f"relabel {classes[number]}" for image, number in overrides.relabel.items()},
        **dict.fromkeys(overrides.drop, "drop"),
    }
    pairs = {**dict.fromkeys(overrides.group, "group"), **dict.fromkeys(overrides.apart, "apart")}
    seen = {(row["question"], row["hash"], row["other"]): row["verdict"] for row in reviewed}
    given = []
    for question, image, other in zip(table["question"], table["image"], table["other"], strict=True):
        one, two = hashes[image], hashes[other] if other >= 0 else ""
        paired = "" if question == "outlier" else pairs.get((min(one, two), max(one, two))) or images.get(two, "")
        given.append(images.get(one) or paired or seen.get((question, one, two), ""))
    return given
