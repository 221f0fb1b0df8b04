"""Decide which images to keep, and record the reason for each image. No image file is deleted.

The steps, in order: apply manual decisions, remove outliers and dropped images, resolve conflicts between copies with
different labels, and keep one image of each set of copies. A set of copies is a connected component of exact and near
pairs, so it can be a chain: if a is near b and b is near c, only one is kept, even if a and c are not near.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from leaf.errors import LeafError

COLUMNS = ("hash", "ruling", "label", "who", "why")
FURTHER = ("date", "run", "other", "file")  # optional columns
TEXT = (*COLUMNS, *FURTHER)
NAMES = ("source", "file_hash", "hash")  # columns that can identify an image; later ones take precedence
_HASH = re.compile("[0-9a-f]{32}")
VERDICTS, PAIRED = ("keep", "drop"), ("group", "apart")
KINDS = (*VERDICTS, "relabel", *PAIRED)


@dataclass(frozen=True)
class Overrides:
    """Manual decisions. Images are identified by their pixel hash.

    `keep` and `drop` contain images, and `relabel` maps images to new labels. `group` contains pairs of images to put
    in one group, and `apart` pairs to separate; the smaller hash comes first.
    The second item of a `group` pair can also be a group name. `applied` counts the applied decisions; `missed`
    describes each skipped one.
    """

    keep: frozenset[str]
    drop: frozenset[str]
    relabel: dict[str, int]
    group: frozenset[tuple[str, str]] = frozenset()
    apart: frozenset[tuple[str, str]] = frozenset()
    applied: int = 0
    missed: tuple[str, ...] = ()


def read_overrides(table: pd.DataFrame, index: pd.DataFrame, classes: Sequence[str]) -> Overrides:
    """Read manual decisions about the images in `index`.

    Args:
        table: text columns `COLUMNS` and optionally `FURTHER`. `hash` can be a file hash, a source or a pixel hash.
            Rows may repeat a decision.
        index: text column `hash` and optionally the other columns in `NAMES`.
        classes: class names.

    Raises:
        LeafError: if a row is invalid or contradicts another.
    """
    given: dict[tuple[str, ...], Any] = {}
    missed: list[str] = []
    table = table.reindex(columns=[*COLUMNS, "other"])
    cells = [table[column].fillna("").astype(str).str.strip() for column in ("hash", "ruling", "label", "other")]
    cells[1] = cells[1].str.lower()
    known = pixel_hashes(index, {*cells[0], *cells[3]})
    for row, image, kind, label, other in zip(table.index, *cells, strict=True):
        where = f"data/overrides.csv: line {row + 2}"
        _check(kind, label, other, where)
        names = [image, other] if kind in PAIRED else [image]
        found = [known.get(name) or known.get(name.lower(), "") for name in names]
        named = kind == "group" and not found[1] and not _HASH.fullmatch(other.lower())  # `other` is a group name
        if named:
            found[1] = other
        if "" in found:
            missed.append(f"{where}: no image has the file_hash, source or hash {names[found.index('')]!r}")
            continue
        if kind == "relabel" and label not in classes:
            missed.append(f"{where}: no class {label!r}; the classes are {', '.join(classes)}")
            continue
        if kind in PAIRED and found[0] == found[1]:
            raise LeafError(f"{where}: {kind} pairs {found[0]} with itself. Specify two different images.")
        what = "label" if kind == "relabel" else "verdict" if kind in VERDICTS else "pair"
        value = classes.index(label) if kind == "relabel" else kind
        if given.setdefault((what, *(found if named else sorted(found))), value) != value:
            raise LeafError(f"{where}: {kind} of {found[0]} contradicts an earlier line. Remove one of the lines.")
    keep, drop = (frozenset(key[1] for key, value in given.items() if value == kind) for kind in VERDICTS)
    group, apart = (frozenset((key[1], key[2]) for key, value in given.items() if value == kind) for kind in PAIRED)
    relabel = {key[1]: value for key, value in given.items() if key[0] == "label"}
    return Overrides(keep, drop, relabel, group, apart, len(table) - len(missed), tuple(missed))


def pixel_hashes(index: pd.DataFrame, called: set[str]) -> dict[str, str]:
    """Map each name in `called` that identifies an image in `index` to the image's pixel hash."""
    called = called | {each.lower() for each in called}
    known: dict[str, str] = {}
    for column in NAMES:
        if column in index:
            rows = index[index[column].isin(called)]
            known |= dict(zip(rows[column], rows["hash"], strict=True))
    moved = [name.partition("/") for name in called - known.keys() if "/" in name] if "source" in index else []
    sources = index["source"].astype(str) if moved else pd.Series(dtype=str)
    for first, _, rest in moved:  # the top folder was renamed; the rest of the path must be unique
        found = ("/" + sources).str.endswith(f"/{rest}")
        if found.sum() == 1 and not sources.str.startswith(f"{first}/").any():
            known[f"{first}/{rest}"] = index["hash"][found].item()
    return known


def _check(kind: str, label: str, other: str, where: str) -> None:
    if kind not in KINDS:
        raise LeafError(f"{where}: ruling: {kind!r}; valid: {', '.join(KINDS)}")
    if (label == "") == (kind == "relabel"):
        problem = f"does not accept a label ({label!r}). Remove it" if label else "requires a label. Enter a class name"
        raise LeafError(f"{where}: {kind} {problem}.")
    if (other == "") == (kind in PAIRED):
        problem = (
            f"does not accept a second image ({other!r}). Remove it"
            if other
            else "requires a second image. Enter it in the column `other`"
        )
        raise LeafError(f"{where}: {kind} {problem}.")


def override_pairs(pairs: Collection[tuple[str, str]], hashes: Iterable[str], names: Iterable[str]) -> np.ndarray:
    """Convert pairs from `Overrides` to image numbers, int64 (K,2), given the `hashes` and group `names` (N,).

    A group name is replaced by the first image of the group or, if it is a new name, by the first image assigned to it.
    """
    if not pairs:
        return np.empty((0, 2), np.int64)
    first = {f"name {name}": place for name, place in _firsts(names).items() if name} | _firsts(hashes)
    rows = [
        (first[one], first[other] if other in first else first.setdefault(f"name {other}", first[one]))
        for one, other in sorted(pairs)
    ]
    return np.array([row for row in rows if row[0] != row[1]], np.int64).reshape(-1, 2)


def _firsts(values: Iterable[str]) -> dict[str, int]:
    return {value: place for place, value in reversed(list(enumerate(values)))}


def trace(overrides: Overrides, hashes: Iterable[str]) -> np.ndarray:
    """Return the manual decisions on each image as text (N,), such as `relabel, group 17, apart 40`."""
    first = _firsts(hashes)
    said: dict[str, list[str]] = {}
    for kind, images in (("keep", overrides.keep), ("drop", overrides.drop), ("relabel", overrides.relabel)):
        for image in images:
            said.setdefault(image, []).append(kind)
    for kind, pairs in (("group", overrides.group), ("apart", overrides.apart)):
        for one, other in sorted(pairs):
            said.setdefault(one, []).append(f"{kind} {first.get(other, other)}")
            if other in first:
                said.setdefault(other, []).append(f"{kind} {first[one]}")
    return np.array([", ".join(said.get(value, ())) for value in hashes], object)


def decide(
    table: pd.DataFrame,
    overrides: Overrides,
    duplicates: Literal["remove", "keep"] = "remove",
    conflicts: Literal["report", "drop", "majority"] = "report",
) -> pd.DataFrame:
    """Decide which images to keep: of each set of copies, the first image in the highest-ranked split.

    A manual label applies to all copies. With `conflicts="majority"`, so does the label of more than half of the
    copies; without such a label, all are dropped.

    `table` has the columns `label`, `hash`, `copies` (one number per set of copies), `outlier` (bool) and `split`
    (given, or ""). Return the final `label`, `kept` (bool), `reason`, `copy_of` (-1 for none), and `conflict`: whether
    the copies of the image have different labels and no manual label.
    """
    labels, hashes = table["label"].to_numpy(), table["hash"].to_numpy(object)
    manual_keep, manual_drop = np.isin(hashes, list(overrides.keep)), np.isin(hashes, list(overrides.drop))
    manual_label = np.array([overrides.relabel.get(value, -1) for value in hashes], np.int64)
    label = np.where(manual_label >= 0, manual_label, labels)
    reason = np.full(len(labels), "", object)
    reason[table["outlier"]] = "outlier"
    reason[manual_drop] = "override"
    reason[manual_keep] = ""

    label, conflict, dropped = _resolve_conflicts(label, manual_label, table["copies"][reason == ""], conflicts)
    reason[dropped & ~manual_keep] = "conflict"

    copy_of = np.full(len(labels), -1, np.int64)
    if duplicates == "remove":
        # A manual `keep` keeps only the first of identical copies.
        left = _by_split(table[reason == ""])
        left["first"], left["same"] = (left.groupby(key)["image"].transform("first") for key in ("copies", "hash"))
        stays = (left["first"] == left["image"]) | (manual_keep[left.index] & (left["same"] == left["image"]))
        gone = left[~stays]
        reason[gone.index] = np.where(gone["same"] != gone["image"], "duplicate", "near_duplicate")
        copy_of[gone.index] = np.where(reason[gone["same"]] == "", gone["same"], gone["first"])
    kept = reason == ""
    reason[kept & (label != labels)] = "relabelled"
    reason[kept & manual_keep] = "override"
    return pd.DataFrame({"label": label, "kept": kept, "reason": reason, "copy_of": copy_of, "conflict": conflict})


def _resolve_conflicts(
    label: np.ndarray, manual_label: np.ndarray, copies: pd.Series, policy: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels, and masks of conflicting images and of images to drop; `copies` omits removed images."""
    label, conflict, dropped = label.copy(), np.zeros(len(label), bool), np.zeros(len(label), bool)
    labels = pd.Series(label[copies.index], copies.index)
    different = copies[labels.groupby(copies).transform("nunique") > 1]
    for members in different.groupby(different).groups.values():
        manual = set(manual_label[members].tolist()) - {-1}
        if len(manual) == 1:
            label[members] = manual.pop()
            continue
        conflict[members] = True
        counts = np.bincount(label[members])
        if policy == "drop" or (policy == "majority" and 2 * counts.max() <= len(members)):
            dropped[members] = True
        elif policy == "majority":
            label[members] = counts.argmax()
    return label, conflict, dropped


def split_ranks(given: Iterable[str]) -> np.ndarray:
    """Return the rank of each given split, int64 (N,): 0 for test, 1 for validation, 2 for train, 3 for none."""
    ranks = {"test": 0, "validation": 1, "train": 2}
    return np.array([ranks.get(split, 3) for split in given], np.int64)


def _by_split(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `image` and `rank`, and sort by rank."""
    ranked = table.assign(image=table.index, rank=split_ranks(table["split"]))
    return ranked.sort_values("rank", kind="stable")


def leave_one_split(decisions: pd.DataFrame, table: pd.DataFrame, overrides: Overrides) -> np.ndarray:
    """Remove images whose group in `table` has an image in a higher-ranked given split (reason `shared_split`).

    Return pairs, int64 (K,2): each image removed because of an image in a different given split, as a copy or as part
    of the same group, and that other image.
    """
    given = table["split"].to_numpy(object)
    left = _by_split(table[decisions["kept"]])
    left = left[left["rank"] < 3]
    first = left.groupby("group")["image"].transform("first")
    lower = (given[first] != left["split"]) & ~left["hash"].isin(overrides.keep)
    gone = left.index[lower]
    decisions.loc[gone, "kept"], decisions.loc[gone, "reason"] = False, "shared_split"
    decisions.loc[gone, "copy_of"] = first[lower]
    copy_of = decisions["copy_of"].to_numpy()
    copies = np.flatnonzero((copy_of >= 0) & (given != ""))
    pairs = np.stack([copies, copy_of[copies]], axis=1)
    return pairs[(given[pairs[:, 1]] != "") & (given[pairs[:, 0]] != given[pairs[:, 1]])]
