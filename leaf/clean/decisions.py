"""What becomes of each image: one row with the reason, nothing deleted.

The order of the steps: a person's labels; outliers and dropped pictures leave; conflicts between copies with different
labels are resolved; of each set of copies the first image stays. A set of copies is a connected component over exact
and near pairs. So copies may be chained: where a is near b and b near c, the first of the three stands for all of them,
even if a and c are farther apart than the threshold. So the order of the images decides only which one of a set stays.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from leaf.errors import LeafError

COLUMNS = ("hash", "ruling", "label", "who", "why")
FURTHER = ("date", "run", "other", "file")  # columns that a file may lack
TEXT = (*COLUMNS, *FURTHER)
NAMES = ("source", "file_hash", "hash")  # what a ruling may call a picture; of equal ones the last holds
_HASH = re.compile("[0-9a-f]{32}")
VERDICTS, PAIRED = ("keep", "drop"), ("group", "apart")
ALL_RULINGS = (*VERDICTS, "relabel", *PAIRED)


@dataclass(frozen=True)
class Rulings:
    """Hashes of pictures that stay, that leave, and that have a label because a person ruled so.

    `group` and `apart` are pairs of hashes of one leaf, and of pictures that are not the same, the smaller first. The
    second of a `group` may be a name instead: all pictures in the group of that name are of one leaf. `applied` counts
    rulings; `missed` says of each of the others, in a line, which picture or class that it names is not there.
    """

    keep: frozenset[str]
    drop: frozenset[str]
    relabel: dict[str, int]
    group: frozenset[tuple[str, str]] = frozenset()
    apart: frozenset[tuple[str, str]] = frozenset()
    applied: int = 0
    missed: tuple[str, ...] = ()


class _MissedError(Exception):
    """A ruling names a picture or a class that is not in this data set: another one, or an earlier state of it."""


def read_rulings(
    table: pd.DataFrame, index: pd.DataFrame, classes: Sequence[str], name: str = "data/overrides.csv"
) -> Rulings:
    """Read a table of rulings (text columns `COLUMNS`, perhaps `FURTHER`) on the images of `index`.

    A ruling names a picture by the hash of its file, its source or the hash of its pixels: the columns `NAMES` of
    `index`, text, of which all but `hash` may be absent. Two rows may say the same, as where two people agree. Raises
    LeafError, naming the line in the file `name`, for a row that can never hold, or where two contradict one another.
    """
    verdicts: dict[str, str] = {}
    relabel: dict[str, int] = {}
    pairs: dict[tuple[str, str], str] = {}
    missed: list[str] = []
    table = table.reindex(columns=[*COLUMNS, "other"])
    cells = [table[column].fillna("").astype(str).str.strip() for column in ("hash", "ruling", "label", "other")]
    cells[1] = cells[1].str.lower()
    known = pictures(index, {*cells[0], *cells[3]})
    for row, picture, ruling, label, other in zip(table.index, *cells, strict=True):
        where = f"{name}: line {row + 2}"
        _check(ruling, label, other, where)
        try:
            picture = _known(picture, known)
            if ruling == "relabel":
                if relabel.setdefault(picture, number := _number(label, classes)) != number:
                    raise LeafError(f"{where}: a second relabel of {picture}; valid: one")
            elif ruling in VERDICTS:
                if verdicts.setdefault(picture, ruling) != ruling:
                    raise LeafError(f"{where}: a second ruling on {picture}, {verdicts[picture]} before; valid: one")
            else:
                pair = _pair(picture, other, known, ruling, where)
                if pairs.setdefault(pair, ruling) != ruling:
                    raise LeafError(f"{where}: {ruling} of a pair that was ruled {pairs[pair]} before; valid: one")
        except _MissedError as error:
            missed.append(f"{where}: {error}")
    keep, drop = (frozenset(each for each, given in verdicts.items() if given == ruling) for ruling in VERDICTS)
    group, apart = (frozenset(each for each, given in pairs.items() if given == ruling) for ruling in PAIRED)
    return Rulings(keep, drop, relabel, group, apart, len(table) - len(missed), tuple(missed))


def pictures(index: pd.DataFrame, called: set[str]) -> dict[str, str]:
    """The hash of the pixels of each picture of `index` that one of the names `called` names, by that name."""
    called = called | {each.lower() for each in called}
    known: dict[str, str] = {}
    for column in NAMES:
        if column in index:
            rows = index[index[column].isin(called)]
            known |= dict(zip(rows[column], rows["hash"], strict=True))
    return known


def _check(ruling: str, label: str, other: str, where: str) -> None:
    if ruling not in ALL_RULINGS:
        raise LeafError(f"{where}: unknown ruling {ruling!r}; valid: {', '.join(ALL_RULINGS)}")
    if (label == "") == (ruling == "relabel"):
        raise LeafError(f"{where}: {ruling} with the label {label!r}; valid: a label for relabel, and for no other")
    if (other == "") == (ruling in PAIRED):
        raise LeafError(
            f"{where}: {ruling} with the other picture {other!r}; valid: another one for group and apart, and for no "
            "other ruling"
        )


def _known(picture: str, known: Mapping[str, str]) -> str:
    found = known.get(picture) or known.get(picture.lower())
    if found is None:
        raise _MissedError(f"no image has the file_hash, the source or the hash {picture!r}")
    return found


def _number(label: str, classes: Sequence[str]) -> int:
    if label not in classes:
        raise _MissedError(f"no class is called {label!r}; the classes are {', '.join(classes)}")
    return list(classes).index(label)


def _pair(picture: str, other: str, known: Mapping[str, str], ruling: str, where: str) -> tuple[str, str]:
    if ruling == "group" and other not in known and other.lower() not in known and not _HASH.fullmatch(other.lower()):
        return picture, other  # a name
    found = _known(other, known)
    if found == picture:
        raise LeafError(f"{where}: {ruling} of {picture} with itself; valid: another picture")
    return min(picture, found), max(picture, found)


def ruled_pairs(pairs: Iterable[tuple[str, str]], hashes: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Pairs of `Rulings` as image numbers int64 (K, 2): the first image of each of two hashes.

    `hashes` and `names`, the groups given with the data set, are text (N,). Pictures that were put into a group of a
    name are paired with the first image of that group, or with the first of them.
    """
    first = {f"name {name}": place for name, place in _firsts(names).items() if name} | _firsts(hashes)
    rows = [
        (first[one], first[other] if other in first else first.setdefault(f"name {other}", first[one]))
        for one, other in sorted(pairs)
    ]
    return np.array([row for row in rows if row[0] != row[1]], np.int64).reshape(-1, 2)


def _firsts(values: np.ndarray) -> dict[str, int]:
    return {value: place for place, value in reversed(list(enumerate(values)))}


def trace(rulings: Rulings, hashes: np.ndarray) -> np.ndarray:
    """What a person ruled on each picture, text (N,): `relabel, group 17, apart 40`, pictures by their first image."""
    first = _firsts(hashes)
    said: dict[str, list[str]] = {}
    for ruling, pictures in (("keep", rulings.keep), ("drop", rulings.drop), ("relabel", rulings.relabel)):
        for picture in pictures:
            said.setdefault(picture, []).append(ruling)
    for ruling, pairs in (("group", rulings.group), ("apart", rulings.apart)):
        for one, other in sorted(pairs):
            said.setdefault(one, []).append(f"{ruling} {first.get(other, other)}")
            if other in first:
                said.setdefault(other, []).append(f"{ruling} {first[one]}")
    return np.array([", ".join(said.get(value, ())) for value in hashes], object)


@dataclass(frozen=True)
class Decisions:
    """For each of N images: final `label` int64, `kept` bool, `reason` text, `copy_of` int64 (-1 for none).

    `conflicts` counts the sets of copies that bear different labels and on which no person ruled.
    """

    label: np.ndarray
    kept: np.ndarray
    reason: np.ndarray
    copy_of: np.ndarray
    conflicts: int


def decide(
    labels: np.ndarray,
    hashes: np.ndarray,
    copies: np.ndarray,
    outlier: np.ndarray,
    rulings: Rulings,
    duplicates: Literal["remove", "keep"] = "remove",
    conflicts: Literal["report", "drop", "majority"] = "report",
    rank: np.ndarray | None = None,
) -> Decisions:
    """Decide on N images with `labels` int (N,), `hashes` text (N,), `copies` (N,) the smallest image number of each
    image's set of copies and `outlier` bool (N,).

    Of copies the one of lowest `rank` int (N,) stays, else the first.
    """
    ruled_keep, ruled_drop = np.isin(hashes, list(rulings.keep)), np.isin(hashes, list(rulings.drop))
    ruled_label = np.array([rulings.relabel.get(value, -1) for value in hashes], np.int64)
    label = np.where(ruled_label >= 0, ruled_label, labels)
    reason = np.full(len(labels), "", object)
    reason[outlier] = "outlier"
    reason[ruled_drop] = "override"
    reason[ruled_keep] = ""
    standing = reason == ""

    label, dropped, found = _resolve_conflicts(label, ruled_label, copies, standing, conflicts)
    dropped &= ~ruled_keep
    reason[dropped] = "conflict"
    standing &= ~dropped

    copy_of = np.full(len(labels), -1, np.int64)
    if duplicates == "remove":
        order = np.flatnonzero(standing)
        if rank is not None:
            order = order[np.argsort(rank[order], kind="stable")]
        _remove_copies(hashes, copies, order, ruled_keep, reason, copy_of)
    kept = reason == ""
    reason[kept & (label != labels)] = "relabelled"
    reason[kept & ruled_keep] = "override"
    return Decisions(label, kept, reason, copy_of, found)


def _resolve_conflicts(
    label: np.ndarray, ruled_label: np.ndarray, copies: np.ndarray, standing: np.ndarray, policy: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Resolve each set of remaining copies with different labels: new labels, the images to drop, sets found.

    A person's label for one copy holds for all of them. A majority needs more than half: a tie is dropped.
    """
    label, dropped = label.copy(), np.zeros(len(label), bool)
    low, high = np.full(len(label), label.max(initial=0)), np.full(len(label), -1)
    np.minimum.at(low, copies[standing], label[standing])
    np.maximum.at(high, copies[standing], label[standing])
    by_set = np.argsort(copies, kind="stable")
    found = 0
    for group in np.flatnonzero(low < high):
        start, end = np.searchsorted(copies, [group, group + 1], sorter=by_set)
        members = by_set[start:end]
        members = members[standing[members]]
        ruled = set(ruled_label[members].tolist()) - {-1}
        if len(ruled) == 1:
            label[members] = ruled.pop()
            continue
        found += 1
        counts = np.bincount(label[members])
        if policy == "drop" or (policy == "majority" and 2 * counts.max() <= len(members)):
            dropped[members] = True
        elif policy == "majority":
            label[members] = counts.argmax()
    return label, dropped, found


def _remove_copies(
    hashes: np.ndarray,
    copies: np.ndarray,
    order: np.ndarray,
    ruled_keep: np.ndarray,
    reason: np.ndarray,
    copy_of: np.ndarray,
) -> None:
    """Mark, in `reason` and `copy_of`, each of the images `order` beyond the first of its set of copies.

    A picture that a person keeps stays beside the first of its set, once.
    """
    first_of_set: dict[int, int] = {}
    first_of_hash: dict[str, int] = {}
    for image in order.tolist():
        first = first_of_set.setdefault(int(copies[image]), image)
        same = first_of_hash.setdefault(hashes[image], image)
        if first == image or (ruled_keep[image] and same == image):
            continue
        reason[image] = "duplicate" if same != image else "near_duplicate"
        copy_of[image] = same if reason[same] == "" else first


def split_ranks(given: np.ndarray) -> np.ndarray:
    """Which of two copies in different splits stays, int (N,): that in test, else in validation, else in train."""
    ranks = {"test": 0, "validation": 1, "train": 2}
    return np.array([ranks.get(split, 3) for split in given], np.int64)


def leave_one_split(decisions: Decisions, groups: np.ndarray, given: np.ndarray, ruled_keep: np.ndarray) -> np.ndarray:
    """Remove, with the reason shared_split, what shows the same as an image of a split that ranks before its own.

    `groups` int (N,), `given` the splits that the user gave, text (N,), "" for none. Returns the pairs, int64 (K, 2),
    of each image that leaves, copies in another split among them, and the one in the other split that stays.
    """
    rank = split_ranks(given)
    order = np.flatnonzero(decisions.kept & (rank < 3))
    order = order[np.argsort(rank[order], kind="stable")]
    best: dict[int, int] = {}
    for image in order.tolist():
        first = best.setdefault(int(groups[image]), image)
        if given[first] != given[image] and not ruled_keep[image]:
            decisions.kept[image], decisions.reason[image], decisions.copy_of[image] = False, "shared_split", first
    gone = np.flatnonzero((decisions.copy_of >= 0) & (given != ""))
    pairs = np.stack([gone, decisions.copy_of[gone]], axis=1)
    return pairs[(given[pairs[:, 1]] != "") & (given[pairs[:, 0]] != given[pairs[:, 1]])]
