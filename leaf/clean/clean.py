"""Clean a data set: decide which images to keep, and return the decisions, outlier rankings, pairs and counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from leaf.clean import outliers
from leaf.clean.decisions import Overrides, decide, leave_one_split, override_pairs, read_overrides, trace
from leaf.clean.distances import block_means
from leaf.clean.groups import components, distinct_hashes, first_copies, pair_table, same_name_pairs
from leaf.clean.near_duplicates import near_pairs
from leaf.clean.outliers import Reference
from leaf.clean.same_photo import MOST_IMAGES, same_photo_pairs
from leaf.errors import plural
from leaf.params import Params

_NAMED = 5  # maximum number of items listed in a warning; the rest are counted
MOST_LOST = 0.05  # share of a class that may be removed for one reason without a warning
MOST_PROPOSED_WARNING = (
    f"references: auto selected {outliers.MOST_PROPOSED} images, the maximum, starting with those that have the most "
    "copies. If the copies were created by augmentation, increase outlier_copies."
)
UNALIGNED_WARNING = (
    "same_photo: {:,} images exceed the limit of "
    f"{MOST_IMAGES:,}, so the search for crops of the same photo was skipped. Specify a group for each image."
)


@dataclass(frozen=True)
class Cleaned:
    """The result of `clean`: tables for data/cleaned/, counts for metrics/clean.json, manual decisions and warnings."""

    decisions: pd.DataFrame
    distances: pd.DataFrame
    pairs: pd.DataFrame
    metrics: dict[str, Any]
    overrides: Overrides
    warnings: list[str]


@threadpool_limits.wrap(1)  # with more BLAS threads, small matrix products take 7× the CPU time
def clean(
    images: np.ndarray,
    index: pd.DataFrame,
    references: Literal["auto"] | Sequence[Reference],
    overrides: pd.DataFrame,
    params: Params,
    classes: Sequence[str] = ("healthy", "unhealthy"),
) -> Cleaned:
    """Decide which images to keep, and with which label.

    Args:
        images: (N,S,S,3), uint8 or float32 in 0..255.
        index: N rows with `label,group,split,source,hash` and optionally `file_hash`.
        references: images whose copies are outliers, as image numbers or (name, pixels (S,S,3)), or `auto`.
        overrides: manual decisions, with text columns `decisions.COLUMNS` and optionally `decisions.FURTHER`.
        params: the parameters of the `clean` stage, except `references`.
        classes: class names.

    Raises:
        LeafError: if a reference does not exist, or an override is invalid or contradicts another.
    """
    # One row per image; `first` is the first image with identical pixels.
    table = index.assign(hash=distinct_hashes(index["hash"].to_numpy(object), images)).reset_index(drop=True)
    table["first"] = first_copies(table["hash"])
    manual = read_overrides(overrides, table, classes)
    hashes, names = table["hash"].tolist(), table["group"].tolist()
    joined, apart = (override_pairs(pairs, hashes, names) for pairs in (manual.group, manual.apart))

    distinct = np.unique(table["first"])
    small = block_means(images, distinct)
    near = near_pairs(images, distinct, small, params.near_mse, params.near_turns)
    copies = np.flatnonzero(table["first"] != table.index)
    exact = pair_table(np.column_stack([table["first"][copies], copies]), "exact", 0.0)
    pairs = pd.concat([exact, _except(near, table["first"], apart)], ignore_index=True)
    table["copies"] = components(len(table), _rows(pairs))

    first, multiplied, auto = table["first"].to_numpy(), list[int](), references == "auto"
    if references == "auto":
        plain = _rows(pairs[pairs["kind"].eq("near")])
        references, multiplied = outliers.frequent(first, plain, table["label"].to_numpy(), params.outlier_copies)
    rankings = outliers.rankings(images, first, small, references, params.outlier_cut)
    # An image that is an outlier for several references is assigned to the nearest one.
    nearest = rankings[rankings["outlier"] == 1].sort_values("distance", kind="stable").drop_duplicates("image")
    table = table.join(nearest.set_index("image")[["reference", "distance"]])
    table["outlier"] = table["reference"].notna()

    to_align = np.empty(0, np.int64)
    if params.same_photo:  # the first image of each set of copies, outliers excluded
        to_align = table[~table["outlier"]].drop_duplicates("copies").index.to_numpy()
    unaligned = len(to_align) if len(to_align) > MOST_IMAGES else 0
    crops = same_photo_pairs(images, to_align[: 0 if unaligned else None], every=len(apart) > 0)
    pairs = pd.concat([pairs, _except(crops, table["copies"], apart)], ignore_index=True)
    table["group"] = components(len(table), np.concatenate([_rows(pairs), same_name_pairs(names), joined]))

    decisions = decide(table, manual, params.duplicates, params.conflicts)
    shared = leave_one_split(decisions, table, manual)
    return Cleaned(
        _decision_table(table, decisions, manual),
        rankings,
        pairs,
        _metrics(table, decisions, classes)
        | ({"shared_between_splits": len(shared)} if table["split"].ne("").any() else {})
        | ({"same_photo_not_sought": unaligned} if unaligned else {}),
        manual,
        [
            *_override_warnings(manual, table, apart),
            *_split_warnings(shared, table),
            *_outlier_warnings(rankings, params.outlier_cut),
            *_class_warnings(table, decisions, params, classes, multiplied),
            *([MOST_PROPOSED_WARNING] if auto and len(references) == outliers.MOST_PROPOSED else []),
            *([UNALIGNED_WARNING.format(unaligned)] if unaligned else []),
        ],
    )


def _rows(pairs: pd.DataFrame) -> np.ndarray:
    return pairs[["image", "other"]].to_numpy(np.int64)


def _except(pairs: pd.DataFrame, sets: pd.Series, apart: np.ndarray) -> pd.DataFrame:
    """Return `pairs`, except those between the sets of images marked `apart` (K,2). `sets` (N,) maps images to sets."""
    names = sets.to_numpy()
    parted = {tuple(row) for row in np.sort(names[apart], axis=1).tolist()}
    return pairs[[tuple(row) not in parted for row in np.sort(names[_rows(pairs)], axis=1).tolist()]]


def _decision_table(table: pd.DataFrame, decisions: pd.DataFrame, manual: Overrides) -> pd.DataFrame:
    outlier = decisions["reason"] == "outlier"
    return pd.DataFrame(
        {
            "image": table.index,
            "label": decisions["label"],
            "kept": decisions["kept"].astype(int),
            "reason": decisions["reason"],
            "reference": table["reference"].where(outlier, ""),
            "distance": table["distance"].where(outlier),
            "group": table["group"],
            "copy_of": decisions["copy_of"].astype("Int64").mask(decisions["copy_of"] < 0),
            "ruling": trace(manual, table["hash"].tolist()),
        }
    )


def _metrics(table: pd.DataFrame, decisions: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Count images by reason and final label; `conflicts` counts sets of copies, not images."""
    reason = decisions["reason"]

    def by_class(images: pd.Series) -> dict[str, int]:
        counts = np.bincount(decisions["label"][images], minlength=len(classes))
        return dict(zip(classes, counts.tolist(), strict=True))

    return {
        "outliers": int(reason.eq("outlier").sum()),
        "duplicates": int(reason.eq("duplicate").sum()),
        "near_duplicates": int(reason.eq("near_duplicate").sum()),
        "conflicts": table["copies"][decisions["conflict"]].nunique(),
        "after_outliers": int(reason.ne("outlier").sum()),
        "after_outliers_classes": by_class(reason.ne("outlier")),
        "kept": int(decisions["kept"].sum()),
        "kept_classes": by_class(decisions["kept"]),
    }


def _outlier_warnings(rankings: pd.DataFrame, cut: float | Literal["jump"]) -> Iterator[str]:
    for reference, outlier in rankings.groupby("reference", sort=False)["outlier"]:
        if not outlier.any() and cut == "jump":
            yield (
                f"references: {reference}: no clear jump in the distances to this image, so none of its copies "
                "were removed. Set outlier_cut to a distance from data/cleaned/distances.csv."
            )


def _class_warnings(
    table: pd.DataFrame, decisions: pd.DataFrame, params: Params, classes: Sequence[str], multiplied: list[int]
) -> Iterator[str]:
    """Yield warnings about conflicts, oversampled classes, and classes that lose many images for one reason."""
    if conflicts := table["copies"][decisions["conflict"]].nunique():
        yield (
            f"conflicts: {plural(conflicts, 'set')} of copies with different labels (conflicts is set to "
            f"{params.conflicts}). Resolve each conflict with `leaf review`."
        )
    for label, name in enumerate(classes):
        own = table["label"].eq(label)
        if often := int(own.iloc[multiplied].sum()):
            yield (
                f"references: images of class {name} that appear {params.outlier_copies} times or more: {often}. The "
                "class was probably oversampled, so one copy of each is kept. To remove all copies of an image, list "
                "it in references."
            )
        for reason, lost in decisions["reason"][own & ~decisions["kept"]].value_counts().items():
            if reason != "override" and lost > MOST_LOST * own.sum():
                yield (
                    f"class {name}: {lost:,} of {own.sum():,} images ({lost / own.sum():.1%}) removed "
                    f"(reason: {reason}). Inspect some of them with `leaf why IMAGE`. To keep one, add it to "
                    "data/overrides.csv."
                )


def _override_warnings(manual: Overrides, table: pd.DataFrame, apart: np.ndarray) -> Iterator[str]:
    """Yield warnings about decisions that match no image, and `apart` images that other pairs still connect."""
    yield from manual.missed[:_NAMED]
    if len(manual.missed) > _NAMED:
        yield f"data/overrides.csv: {plural(len(manual.missed) - _NAMED, 'more line')} with an unknown image or class"
    group = table["group"].to_numpy()
    for one, other in apart[group[apart[:, 0]] == group[apart[:, 1]]].tolist():
        yield (
            f"data/overrides.csv: images {one} and {other} are marked apart, but other pairs connect them. Mark those "
            "pairs apart too."
        )


def _split_warnings(shared: np.ndarray, table: pd.DataFrame) -> Iterator[str]:
    """Yield a warning about images removed because of a copy, or an image of the same group, in another given split."""
    if len(shared):
        named = [f"{name} ({split})" for name, split in zip(table["source"], table["split"], strict=True)]
        removed = ", ".join(f"{named[gone]} because of {named[stays]}" for gone, stays in shared[:_NAMED].tolist())
        more = f" and {len(shared) - _NAMED} more (data/cleaned/decisions.csv, copy_of)"
        yield (
            f"split: images removed because another given split contains a copy or an image of the same group: "
            f"{len(shared)}. Test takes precedence over validation, and validation over train. Removed: {removed}"
            f"{more if len(shared) > _NAMED else ''}"
        )
