"""The whole of cleaning: from images and their index to decisions, rankings, pairs and counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from leaf.clean import outliers
from leaf.clean.decisions import (
    Decisions,
    Rulings,
    decide,
    leave_one_split,
    read_rulings,
    ruled_pairs,
    split_ranks,
    trace,
)
from leaf.clean.distances import block_means
from leaf.clean.groups import components, distinct_hashes, first_copies, same_name_pairs, without
from leaf.clean.near_duplicates import Pairs, near_pairs
from leaf.clean.outliers import Ranking, Reference
from leaf.clean.same_photo import MOST_IMAGES, AlignedPairs, same_photo_pairs

_TOLD = 5  # rulings without an image that are named in a warning; the rest are counted
MOST_LOST = 0.05  # share of a class that one rule may remove without a warning


@dataclass(frozen=True)
class Settings:
    """The class names, and the parameters of the same names in params.yaml, where their valid values are."""

    classes: Sequence[str]
    outlier_copies: int
    outlier_cut: float | Literal["jump"]
    duplicates: Literal["remove", "keep"]
    near_mse: float
    near_turns: bool
    conflicts: Literal["report", "drop", "majority"]
    same_photo: bool

    @classmethod
    def from_params(cls, params: Any, classes: Sequence[str] = ("healthy", "unhealthy")) -> "Settings":
        """Take the other fields from an object that has them as attributes; whatever else it holds is left alone."""
        return cls(classes, **{each.name: getattr(params, each.name) for each in fields(cls)[1:]})


@dataclass(frozen=True)
class Cleaned:
    """The tables and counts of data/cleaned/ and metrics/clean.json, and warnings for a person, a line each."""

    decisions: pd.DataFrame
    distances: pd.DataFrame
    pairs: pd.DataFrame
    metrics: dict[str, Any]
    rulings: Rulings
    warnings: list[str] = field(default_factory=list)


@threadpool_limits.wrap(1)  # on products so small BLAS's threads wait for one another: seven times the processor time
def clean(
    images: np.ndarray,
    index: pd.DataFrame,
    references: Literal["auto"] | Sequence[Reference],
    overrides: pd.DataFrame,
    settings: Settings,
) -> Cleaned:
    """Decide on every image of `images` (N,S,S,3), uint8 or float32 0..255, described by the N rows of `index`.

    `references` are image numbers and (name, pixels (S,S,3)) of pictures whose copies are outliers, or `auto`.
    `index` has the columns image, label, group and hash, and perhaps the further `decisions.NAMES`; `overrides` has
    `decisions.COLUMNS`, as text. Raises LeafError for a reference that fits no image, or a ruling that cannot hold.
    """
    hashes = distinct_hashes(index["hash"].to_numpy(object), images)
    rulings = read_rulings(overrides, index.assign(hash=hashes), settings.classes)
    first = first_copies(hashes)
    distinct = np.unique(first)
    small = block_means(images, distinct)
    names = index["group"].to_numpy(object)
    given = index["split"].to_numpy(object) if "split" in index else np.full(len(index), "", object)
    joined, parted = (ruled_pairs(pairs, hashes, names) for pairs in (rulings.group, rulings.apart))
    near: Pairs = without(near_pairs(images, distinct, small, settings.near_mse, settings.near_turns), first, parted)

    labels = index["label"].to_numpy(np.int64)
    multiplied: list[int] = []
    auto = references == "auto"
    if references == "auto":
        same = near.rows[near.transform == "none"]
        references, multiplied = outliers.frequent(first, same, labels, settings.outlier_copies)
    rankings = outliers.rankings(images, first, small, references, settings.outlier_cut)
    ranking, distance = outliers.nearest(rankings, len(images))

    copied = np.flatnonzero(first != np.arange(len(first)))
    exact_pairs = np.stack([first[copied], copied], axis=1)
    copies = components(len(images), np.concatenate([exact_pairs, near.rows]))
    to_align = _first_of_each(copies, ranking < 0) if settings.same_photo else np.empty(0, np.int64)
    too_many = len(to_align) > MOST_IMAGES
    crops: AlignedPairs = without(same_photo_pairs(images, to_align[:0] if too_many else to_align), copies, parted)
    together = [exact_pairs, near.rows, crops.rows, same_name_pairs(names), joined]
    groups = components(len(images), np.concatenate(together))
    decisions = decide(
        labels,
        hashes,
        copies,
        ranking >= 0,
        rulings,
        settings.duplicates,
        settings.conflicts,
        split_ranks(given),
    )
    shared = leave_one_split(decisions, groups, given, np.isin(hashes, list(rulings.keep)))
    outlier = decisions.reason == "outlier"
    references_of = np.array([*(each.reference for each in rankings), ""], object)
    table = pd.DataFrame(
        {
            "image": np.arange(len(images)),
            "label": decisions.label,
            "kept": decisions.kept.astype(int),
            "reason": decisions.reason,
            "reference": np.where(outlier, references_of[ranking], ""),
            "distance": np.where(outlier, distance, np.nan),
            "group": groups,
            "copy_of": pd.Series(decisions.copy_of, dtype="Int64").mask(decisions.copy_of < 0),
            "ruling": trace(rulings, hashes),
        }
    )
    return Cleaned(
        table,
        outliers.ranking_table(rankings),
        _pair_table(exact_pairs, near, crops),
        _metrics(decisions, settings.classes)
        | ({"shared_between_splits": len(shared)} if (given != "").any() else {})
        | ({"same_photo_not_sought": len(to_align)} if too_many else {}),
        rulings,
        _missed(rulings)
        + _shared(shared, given, index["source" if "source" in index else "image"].astype(str).tolist())
        + _warnings(rankings, decisions, len(rankings) if auto else 0, settings, len(to_align) if too_many else 0)
        + _class_warnings(labels, decisions, multiplied, settings)
        + [
            f"data/overrides.csv: images {one} and {other} were ruled apart and are still in one group, through others"
            for one, other in parted[groups[parted[:, 0]] == groups[parted[:, 1]]].tolist()
        ],
    )


def _shared(pairs: np.ndarray, given: np.ndarray, names: Sequence[str]) -> list[str]:
    """The images that left because another given split holds the same."""
    if not len(pairs):
        return []
    named = [
        f"{names[gone]} ({given[gone]}) for {names[stays]} ({given[stays]})" for gone, stays in pairs[:_TOLD].tolist()
    ]
    more = f" and {len(pairs) - _TOLD} more (data/cleaned/decisions.csv, copy_of)" if len(pairs) > _TOLD else ""
    return [
        f"{len(pairs)} photographs stood in two given splits or show the same as one in another; test keeps them "
        f"before validation, validation before train; out: {', '.join(named)}{more}"
    ]


def _missed(rulings: Rulings) -> list[str]:
    more = [f"data/overrides.csv: {len(rulings.missed) - _TOLD} more such lines"]
    return [*rulings.missed[:_TOLD], *(more if len(rulings.missed) > _TOLD else ())]


def _first_of_each(copies: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The first image of each set of `copies` among the images that are `inside`, ascending."""
    images = np.flatnonzero(inside)
    return np.sort(images[np.unique(copies[images], return_index=True)[1]])


def _pair_table(exact_pairs: np.ndarray, near: Pairs, crops: AlignedPairs) -> pd.DataFrame:
    """Each exact copy beside the first one, near pairs between first copies, crops of one photograph."""
    turned = near.transform != "none"
    parts = [
        pd.DataFrame({"kind": "exact", "mse": 0.0, "transform": ""}, index=range(len(exact_pairs))),
        pd.DataFrame(
            {
                "kind": np.where(turned, "turned", "near"),
                "mse": near.mse,
                "transform": np.where(turned, near.transform, ""),
            }
        ),
        pd.DataFrame({"kind": "aligned", "mse": crops.mse, "transform": crops.transform}),
    ]
    rows = np.concatenate([exact_pairs, near.rows, crops.rows])
    table = pd.concat([part.astype({"mse": float}) for part in parts], ignore_index=True)
    table.insert(0, "image", rows[:, 0])
    table.insert(1, "other", rows[:, 1])
    table["aligned_mse"] = np.concatenate([np.full(len(rows) - len(crops.rows), np.nan), crops.aligned_mse])
    return table


def _metrics(decisions: Decisions, classes: Sequence[str]) -> dict[str, Any]:
    """Counts of images, by the final reason and label; `conflicts` counts sets of copies."""
    reason = decisions.reason
    inside = reason != "outlier"

    def by_class(images: np.ndarray) -> dict[str, int]:
        return dict(zip(classes, np.bincount(decisions.label[images], minlength=len(classes)).tolist(), strict=True))

    return {
        "outliers": int((~inside).sum()),
        "duplicates": int((reason == "duplicate").sum()),
        "near_duplicates": int((reason == "near_duplicate").sum()),
        "conflicts": decisions.conflicts,
        "after_outliers": int(inside.sum()),
        "after_outliers_classes": by_class(inside),
        "kept": int(decisions.kept.sum()),
        "kept_classes": by_class(decisions.kept),
    }


def _class_warnings(
    labels: np.ndarray, decisions: Decisions, multiplied: Sequence[int], settings: Settings
) -> list[str]:
    """Classes whose pictures somebody seems to have `multiplied`, or that lose most images to one reason."""
    lines = []
    for label, name in enumerate(settings.classes):
        mine = labels == label
        if often := sum(mine[image] for image in multiplied):
            lines.append(
                f"references: {often} pictures of {name} stand {settings.outlier_copies} times or more: somebody "
                "multiplied the class, so they are no outliers and each is kept once; name those that are in references"
            )
        removed = pd.Series(decisions.reason[mine & ~decisions.kept]).value_counts()
        lines += [
            f"class {name}: {lost:,} of {mine.sum():,} images ({lost / mine.sum():.1%}) were removed as {reason}. "
            "Look at some with `leaf why IMAGE`; keep an image by an override."
            for reason, lost in removed.items()
            if reason != "override" and lost > MOST_LOST * mine.sum()
        ]
    return lines


def _warnings(
    rankings: Sequence[Ranking], decisions: Decisions, proposed: int, settings: Settings, unaligned: int
) -> list[str]:
    """What a person should look at; `proposed` references were found by `auto`, `unaligned` images were not aligned."""
    lines = [
        f"references: {ranking.reference}: no clear jump in its ranking, so nothing was removed for it; "
        "give a distance as outlier_cut (data/cleaned/distances.csv has the ranking)"
        for ranking in rankings
        if not ranking.outliers and settings.outlier_cut == "jump"
    ]
    if proposed == outliers.MOST_PROPOSED:
        lines.append(
            f"references: auto proposed the {proposed} most frequent pictures and no more; if the set was "
            "augmented, raise outlier_copies"
        )
    if decisions.conflicts:
        lines.append(
            f"conflicts: {decisions.conflicts} sets of copies bear different labels (conflicts: {settings.conflicts}); "
            "rule on them in data/overrides.csv"
        )
    if unaligned:
        lines.append(
            f"same_photo: crops of one photograph were not sought among {unaligned} images, more than "
            f"{MOST_IMAGES}; give a group for each image with the data set"
        )
    return lines
