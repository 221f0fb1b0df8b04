"""The whole of cleaning: from images and their index to decisions, rankings, pairs and counts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from leaf.errors import LeafError
from leaf.similarity import distances, near, outliers
from leaf.similarity.crops import MOST_IMAGES, AlignedPairs, same_photo_pairs
from leaf.similarity.decisions import Decisions, decide, read_rulings

# A ranking is written as far as the outliers and so many images behind the cut; the rest of a huge set says nothing.
RANKING_TAIL = 2000


@dataclass(frozen=True)
class Settings:
    """The parameters of the same names in params.yaml."""

    classes: Sequence[str] = ("healthy", "unhealthy")
    outlier_copies: int = 8
    outlier_cut: float | Literal["jump"] = "jump"
    duplicates: Literal["remove", "keep"] = "remove"
    near_mse: float = 150
    near_turns: bool = False
    conflicts: Literal["report", "drop", "majority"] = "report"
    same_photo: bool = True


@dataclass(frozen=True)
class Cleaned:
    """The tables and counts of data/cleaned/ and metrics/clean.json, and warnings for a person, a line each."""

    decisions: pd.DataFrame
    distances: pd.DataFrame
    pairs: pd.DataFrame
    metrics: dict[str, int]
    warnings: list[str] = field(default_factory=list)


def clean(
    images: np.ndarray,
    index: pd.DataFrame,
    references: Literal["auto"] | Sequence[int | tuple[str, np.ndarray]],
    overrides: pd.DataFrame,
    settings: Settings,
) -> Cleaned:
    """Decide on every image of `images` (N,S,S,3), uint8 or float32 0..255, described by the N rows of `index`.

    `references` are image numbers and (name, pixels (S,S,3)) of pictures whose copies are outliers, or `auto`.
    `index` has the columns image, label, group, hash; `overrides` those of `decisions.COLUMNS`, as text.
    Raises LeafError for a reference or a ruling that fits no image.
    """
    hashes = index["hash"].to_numpy(object)
    ruled = read_rulings(overrides, hashes, settings.classes)
    first = first_copies(hashes)
    distinct = np.unique(first)
    small = distances.thumbnails(images, distinct)
    close = near.near_pairs(images, distinct, small, settings.near_mse, settings.near_turns)

    plain = close.rows[close.transform == "none"]
    named: Sequence[int | tuple[str, np.ndarray]] = (
        outliers.propose(first, plain, settings.outlier_copies) if references == "auto" else references
    )
    rankings = _rank(images, first, distinct, small, named, settings.outlier_cut)
    place, distance = outliers.nearest(rankings, len(images))

    copied = np.flatnonzero(first != np.arange(len(first)))
    exact_pairs = np.stack([first[copied], copied], axis=1)
    copies = components(len(images), np.concatenate([exact_pairs, close.rows]))
    members = chain(index["group"].to_numpy(object))
    alone = _standing(copies, place < 0, settings.same_photo)
    many = len(alone) > MOST_IMAGES
    crops = same_photo_pairs(images, alone[:0] if many else alone)
    together = components(len(images), np.concatenate([exact_pairs, close.rows, crops.rows, members]))
    decisions = decide(
        index["label"].to_numpy(np.int64),
        hashes,
        copies,
        place >= 0,
        ruled,
        settings.duplicates,
        settings.conflicts,
    )
    left = decisions.reason == "outlier"
    names = np.array([*(ranking.reference for ranking in rankings), ""], object)
    table = pd.DataFrame(
        {
            "image": np.arange(len(images)),
            "label": decisions.label,
            "kept": decisions.kept.astype(int),
            "reason": decisions.reason,
            "reference": np.where(left, names[place], ""),
            "distance": np.where(left, distance, np.nan),
            "group": together,
            "copy_of": pd.Series(decisions.copy_of, dtype="Int64").mask(decisions.copy_of < 0),
        }
    )
    return Cleaned(
        table,
        _ranking_table(rankings),
        _pair_table(exact_pairs, close, crops),
        _metrics(decisions, settings.classes),
        _warnings(rankings, decisions, references == "auto", settings, len(alone) if many else 0),
    )


def _standing(copies: np.ndarray, inside: np.ndarray, wanted: bool) -> np.ndarray:
    """The first image of each set of copies that is no outlier: the images to align; none where not `wanted`."""
    images = np.flatnonzero(inside & wanted)
    return np.sort(images[np.unique(copies[images], return_index=True)[1]])


def _rank(
    images: np.ndarray,
    first: np.ndarray,
    distinct: np.ndarray,
    small: np.ndarray,
    references: Sequence[int | tuple[str, np.ndarray]],
    cut: float | Literal["jump"],
) -> list[outliers.Ranking]:
    given = [_reference(images, reference) for reference in references]
    within = outliers.REACH if cut == "jump" else cut
    pixels = [each for _, each, _ in given]
    place = np.searchsorted(distinct, first)
    measured = distances.to_references(images, distinct, small, pixels, within, RANKING_TAIL)
    return [
        outliers.rank(name, distance[place], cut, own) for (name, _, own), distance in zip(given, measured, strict=True)
    ]


def _reference(images: np.ndarray, reference: int | tuple[str, np.ndarray]) -> tuple[str, np.ndarray, int | None]:
    """Name and pixels of a reference, and its number where it is an image of the set."""
    own = None
    if isinstance(reference, tuple):
        name, pixels = reference
    else:
        if not 0 <= reference < len(images):
            raise LeafError(f"references: there is no image {reference}; valid: 0 to {len(images) - 1}, or file names")
        name, pixels, own = str(reference), np.asarray(images[reference]), reference
    return name, np.ascontiguousarray(pixels, images.dtype), own


def _ranking_table(rankings: Sequence[outliers.Ranking]) -> pd.DataFrame:
    parts = []
    for ranking in rankings:
        rows = min(len(ranking.order), ranking.outliers + RANKING_TAIL)
        parts.append(
            pd.DataFrame(
                {
                    "reference": ranking.reference,
                    "rank": np.arange(1, rows + 1),
                    "image": ranking.order[:rows],
                    "distance": ranking.distance[:rows],
                    "outlier": (np.arange(rows) < ranking.outliers).astype(int),
                }
            )
        )
    return pd.concat(parts) if parts else pd.DataFrame(columns=["reference", "rank", "image", "distance", "outlier"])


def _pair_table(exact_pairs: np.ndarray, close: near.Pairs, crops: AlignedPairs) -> pd.DataFrame:
    """Each exact copy beside the first one, near pairs between first copies, crops of one photograph."""
    turned = close.transform != "none"
    parts = [
        pd.DataFrame({"kind": "exact", "mse": 0.0, "transform": ""}, index=range(len(exact_pairs))),
        pd.DataFrame(
            {
                "kind": np.where(turned, "turned", "near"),
                "mse": close.mse,
                "transform": np.where(turned, close.transform, ""),
            }
        ),
        pd.DataFrame({"kind": "aligned", "mse": crops.mse, "transform": crops.transform}),
    ]
    rows = np.concatenate([exact_pairs, close.rows, crops.rows])
    table = pd.concat([part.astype({"mse": float}) for part in parts], ignore_index=True)
    table.insert(0, "image", rows[:, 0])
    table.insert(1, "other", rows[:, 1])
    table["aligned_mse"] = np.concatenate([np.full(len(rows) - len(crops.rows), np.nan), crops.aligned_mse])
    return table


def _metrics(decisions: Decisions, classes: Sequence[str]) -> dict[str, int]:
    """Counts of images, by the final reason and label; `conflicts` counts sets of copies."""
    reason, label = decisions.reason, decisions.label
    inside = reason != "outlier"
    metrics = {
        "outliers": int((~inside).sum()),
        "duplicates": int((reason == "duplicate").sum()),
        "near_duplicates": int((reason == "near_duplicate").sum()),
        "conflicts": decisions.conflicts,
        "after_outliers": int(inside.sum()),
        "kept": int(decisions.kept.sum()),
    }
    for value, name in enumerate(classes):
        metrics[f"after_outliers_{name}"] = int((inside & (label == value)).sum())
        metrics[f"kept_{name}"] = int((decisions.kept & (label == value)).sum())
    return metrics


def _warnings(
    rankings: Sequence[outliers.Ranking], decisions: Decisions, proposed: bool, settings: Settings, unaligned: int
) -> list[str]:
    lines = [
        f"references: {ranking.reference}: no clear jump in its ranking, so nothing was removed for it; "
        "give a distance as outlier_cut (data/cleaned/distances.csv has the ranking)"
        for ranking in rankings
        if not ranking.outliers and settings.outlier_cut == "jump"
    ]
    if proposed and len(rankings) == outliers.MOST_PROPOSED:
        lines.append(
            f"references: auto proposed the {len(rankings)} most frequent pictures and no more; if the set was "
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


def first_copies(hashes: Iterable[str]) -> np.ndarray:
    """The first image with the same hash, for each of N hashes: int64 (N,), the image itself where it is the first."""
    first: dict[str, int] = {}
    return np.fromiter((first.setdefault(value, i) for i, value in enumerate(hashes)), np.int64)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The smallest image number in each image's component over `pairs` int64 (K,2) of 0..count-1: int64 (count,)."""
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    total, component = connected_components(graph, directed=False)
    smallest = np.full(total, count, np.int64)
    np.minimum.at(smallest, component, np.arange(count))
    return smallest[component]


def chain(names: np.ndarray) -> np.ndarray:
    """Pairs int64 (K,2) that tie each image to the first one of the same name, "" being none: names (N,) text."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, i), i) for i, name in enumerate(names) if name]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
