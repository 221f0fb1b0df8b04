"""Which pictures are worth a person's look, and in which order: from the tables of a run alone.

The order is by expected gain: how likely a person's word changes something, times how many images it reaches. The
likelihood of a wrong label is what held-out predictions say of it; of the other questions it is an estimate. A picture
reaches its kept copies and, as a parent or a neighbour, its part in the synthetic images. `benchmarks/review.py`
measures how soon planted faults come up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaf.clean.decisions import Rulings
from leaf.evaluate import baselines
from leaf.evaluate.label_issues import suspicious
from leaf.review.rulings import Row

# Each question, and what it asks.
QUESTIONS = {
    "conflict": "Copies with different labels",
    "label": "Label against the prediction",
    "flag": "Dark, blurred or unlike the others",
    "outlier": "Taken out as an outlier",
    "copy": "Taken out as a near copy",
    "crop": "Taken for one photograph",
}
# How often a person's word is likely to change something. Of copies with different labels one label is wrong for
# certain; what clean takes out is seldom wrong, and the images that leave as outliers are many at one look.
SHARE = {"conflict": 1.0, "flag": 0.5, "outlier": 0.02, "copy": 0.05, "crop": 0.1}
CONFIDENT = 0.1  # a held-out probability of its own label below which an image is a confident mistake


@dataclass(frozen=True)
class LabelAssessment:
    """Held-out predictions of N images compared with their labels.

    `own` float64 (N,) is the probability of the label, nan without a prediction; `likely` int64 (N,) the most probable
    class; `contradicted` bool (N,) marks likely label errors (confident learning).
    """

    own: np.ndarray
    likely: np.ndarray
    contradicted: np.ndarray


def class_probabilities(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return out-of-fold class probabilities, float64 (N, K), of a logistic regression in at most five grouped folds.

    `features` (N, D), `labels` int (N,) of K classes, `groups` (N,). All nan if a class has fewer than two groups.
    """
    classes, places = np.unique(labels, return_inverse=True)
    folds = min([5, *(len(np.unique(groups[places == place])) for place in range(len(classes)))])
    if folds < 2 or len(classes) < 2:
        return np.full((len(labels), len(classes)), np.nan)
    return baselines.held_out("held", features, places, groups, folds, seed)


def assess_labels(labels: np.ndarray, probabilities: np.ndarray) -> LabelAssessment:
    """Compare `labels` int (N,) with held-out `probabilities` float64 (N, K), nan in rows without a prediction."""
    asked = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    own, likely = np.full(len(labels), np.nan), labels.astype(np.int64)
    contradicted = np.zeros(len(labels), bool)
    own[asked] = probabilities[asked, labels[asked]]
    likely[asked] = probabilities[asked].argmax(axis=1)
    classes, places = np.unique(labels[asked], return_inverse=True)
    if len(classes) > 1:
        shares = probabilities[asked][:, classes]
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        contradicted[asked[suspicious(places, shares)[0]]] = True
    return LabelAssessment(own, likely, contradicted)


def reach(hashes: np.ndarray, kept: np.ndarray, synthetic: pd.DataFrame | None) -> np.ndarray:
    """How many images a word on each of N pictures reaches, float64 (N,): `hashes` text, `kept` bool.

    `synthetic` has the columns parent, neighbour and weight, the neighbour's part.
    """
    copies = pd.Series(kept.astype(float)).groupby(hashes).transform("sum").to_numpy().copy()
    if synthetic is not None and len(synthetic):
        part = synthetic["weight"].fillna(0).to_numpy(float)
        for column, share in (("parent", 1 - part), ("neighbour", part)):
            there = synthetic[column].notna().to_numpy()
            images = synthetic.loc[there, column].to_numpy(np.int64)
            copies += np.bincount(images, share[there], len(hashes))[: len(hashes)]
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
    """The cases, the most valuable first: `question,image,other,gain,why`; `other` is -1 where one picture is asked of.

    `index`, `decisions`, `pairs` are those of data/ingested and data/cleaned; `unknown` bool (N,) says which images
    are unlike what the model knows; `reached` is from `reach`. A picture is asked of once, by the first of its copies
    that is kept, else by the first.
    """
    single = [
        *_labels(decisions, held_out, reached, classes),
        *_flags(index, decisions, unknown, reached),
    ]
    table = pd.concat(
        [
            _merged(pd.DataFrame(single, columns=_COLUMNS), index["hash"].to_numpy()),
            pd.DataFrame(_outliers(index, decisions), columns=_COLUMNS),
            pd.DataFrame(_pairs(decisions, pairs, classes), columns=_COLUMNS),
        ],
        ignore_index=True,
    ).astype({"image": int, "other": int, "gain": float})
    return table.sort_values(["gain", "image"], ascending=[False, True], kind="stable", ignore_index=True)


_COLUMNS = ["question", "image", "other", "gain", "why"]
_Case = tuple[str, int, int, float, str]


def _labels(
    decisions: pd.DataFrame, held_out: LabelAssessment, reached: np.ndarray, classes: Sequence[str]
) -> list[_Case]:
    """Kept images whose label the held-out predictions contradict, or do not believe."""
    doubted = decisions["kept"].eq(1).to_numpy() & (held_out.contradicted | (held_out.own < 0.5))
    found = []
    labels = decisions["label"].to_numpy()
    for image in np.flatnonzero(doubted).tolist():
        own = float(held_out.own[image])
        label = classes[labels[image]]
        how = "a confident mistake, or a wrong label" if own < CONFIDENT else "not what the label says"
        why = f"held-out probability of {label} {own:.3f}, likeliest {classes[held_out.likely[image]]}: {how}"
        # what confident learning does not take for wrong is half as likely to be
        found.append(
            ("label", image, -1, (1 - own) * reached[image] * (1 if held_out.contradicted[image] else 0.5), why)
        )
    return found


def _flags(index: pd.DataFrame, decisions: pd.DataFrame, unknown: np.ndarray, reached: np.ndarray) -> list[_Case]:
    """Kept images that reading flagged, or that are unlike what the model knows."""
    flags = index["flags"].to_numpy(object)
    there = decisions["kept"].eq(1).to_numpy() & ((flags != "") | unknown)
    found = []
    for image in np.flatnonzero(there).tolist():
        words = [*flags[image].split(), *["unlike the photographs it learned from"] * bool(unknown[image])]
        found.append(("flag", image, -1, SHARE["flag"] * reached[image], ", ".join(words)))
    return found


def _merged(single: pd.DataFrame, hashes: np.ndarray) -> pd.DataFrame:
    """One case a picture: the question of the larger gain, the gains added, both reasons."""
    if single.empty:
        return single
    single = single.sort_values("gain", ascending=False, kind="stable")
    by_picture = single.groupby(hashes[single["image"].to_numpy(int)], sort=False)
    first = by_picture.first()
    first["image"] = by_picture["image"].min()
    # copies have one reason each of a kind: the sum over kinds, not over copies
    strongest = single.assign(hash=hashes[single["image"].to_numpy(int)]).drop_duplicates(["hash", "question"])
    first["gain"] = strongest.groupby("hash", sort=False)["gain"].sum()
    first["why"] = strongest.groupby("hash", sort=False)["why"].agg("; ".join)
    return first.reset_index(drop=True)[_COLUMNS]


def _outliers(index: pd.DataFrame, decisions: pd.DataFrame) -> list[_Case]:
    """Each picture that left as an outlier, once, with as many images as left with it."""
    out = decisions[decisions["reason"].eq("outlier")]
    found: list[_Case] = []
    for _, copies in out.groupby(index["hash"].to_numpy()[out["image"]], sort=False):
        row = copies.to_dict("records")[0]
        reference = str(row["reference"])
        other = int(reference) if reference.isdecimal() and int(reference) != row["image"] else -1
        why = f"{len(copies)} images, {row['distance']:.4g} (mean squared error) from reference {reference}"
        found.append(("outlier", row["image"], other, SHARE["outlier"] * len(copies), why))
    return found


def _pairs(decisions: pd.DataFrame, pairs: pd.DataFrame, classes: Sequence[str]) -> list[_Case]:
    """One case for each group in which labels differ; else each near copy that left, and each pair of crops."""
    inside = decisions["reason"].ne("outlier").to_numpy()
    label, group = decisions["label"].to_numpy(), decisions["group"].to_numpy()
    pairs = pairs[inside[pairs["image"]] & inside[pairs["other"]]]
    differ = label[pairs["image"]] != label[pairs["other"]]
    sizes = np.bincount(group[inside], minlength=len(decisions))
    found: list[_Case] = []
    conflicts = pairs[differ].assign(group=group[pairs["image"][differ]]).drop_duplicates("group")
    for row in conflicts.to_dict("records"):
        one, other = int(row["image"]), int(row["other"])
        why = f"{_kind(row)}: image {one} is {classes[label[one]]}, image {other} is {classes[label[other]]}"
        found.append(("conflict", one, other, SHARE["conflict"] * int(sizes[group[one]]), why))
    same = pairs[~differ & pairs["kind"].ne("exact")]
    # the farther apart a pair is, the likelier it is none
    doubt = same["aligned_mse"].fillna(same["mse"]).groupby(same["kind"]).rank(pct=True)
    for row, rank in zip(same.to_dict("records"), doubt, strict=True):
        question = "crop" if row["kind"] == "aligned" else "copy"
        found.append((question, int(row["other"]), int(row["image"]), SHARE[question] * float(rank), _kind(row)))
    return found


def _kind(row: dict) -> str:
    if row["kind"] == "exact":
        return "exact copies"
    if row["kind"] == "aligned":
        return f"crops of one photograph, {row['aligned_mse']:.3g} (mean squared error) apart, {row['transform']}"
    turned = f", {row['transform']}" if row["kind"] == "turned" else ""
    return f"near copies, {row['mse']:.3g} (mean squared error) apart{turned}"


def answers(
    table: pd.DataFrame, hashes: Sequence[str], rulings: Rulings, classes: Sequence[str], reviewed: Sequence[Row]
) -> list[str]:
    """What a person said of each case of `table`: a ruling (`relabel healthy`), `seen`, `unsure`, or "" for nothing.

    `hashes` (N,) are those of the index, of the pixels, as are those of `reviewed` (`leaf.review.rulings.resolved`); a
    ruling on a picture answers whatever is asked of it.
    """
    pictures = {
        **dict.fromkeys(rulings.keep, "keep"),
        **{picture: f"relabel {classes[number]}" for picture, number in rulings.relabel.items()},
        **dict.fromkeys(rulings.drop, "drop"),
    }
    pairs = {**dict.fromkeys(rulings.group, "group"), **dict.fromkeys(rulings.apart, "apart")}
    seen = {(row["question"], row["hash"], row["other"]): row["verdict"] for row in reviewed}
    said = []
    for question, image, other in zip(table["question"], table["image"], table["other"], strict=True):
        one, two = hashes[image], hashes[other] if other >= 0 else ""
        paired = "" if question == "outlier" else pairs.get((min(one, two), max(one, two))) or pictures.get(two, "")
        said.append(pictures.get(one) or paired or seen.get((question, one, two), ""))
    return said
