"""What becomes of each image: one row with the reason, nothing deleted.

The order of the steps: a person's labels; outliers and dropped pictures leave; copies that bear different labels are
settled; of each set of copies the first image stays. A set of copies is a connected component over exact and near
pairs. So copies may be chained: where a is near b and b near c, the first of the three stands for all of them, also
if a and c are farther apart than the threshold. The result then does not hang on the order of the images, save for
which one of a set stays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from leaf.errors import LeafError

COLUMNS = ("hash", "ruling", "label", "who", "why")


@dataclass(frozen=True)
class Rulings:
    """Hashes of pictures that stay, that leave, and that have a label (0 or 1) by a person's word."""

    keep: frozenset[str]
    drop: frozenset[str]
    relabel: dict[str, int]


def read_rulings(
    table: pd.DataFrame, hashes: Iterable[str], classes: Sequence[str], name: str = "data/overrides.csv"
) -> Rulings:
    """Check a table of rulings (text columns hash, ruling, label, who, why) against the `hashes` in the data set.

    A picture may have one keep or drop and one relabel. Raises LeafError, naming the line in the file `name`.
    """
    known = set(hashes)
    verdicts: dict[str, str] = {}
    relabel: dict[str, int] = {}
    cells = (table[column].astype(str).str.strip() for column in ("hash", "ruling", "label"))
    for line, (picture, ruling, label) in enumerate(zip(*cells, strict=True), start=2):
        where = f"{name}: line {line}"
        picture = picture.lower()
        if picture not in known:
            raise LeafError(
                f"{where}: no image has the hash {picture!r}; valid: one from data/ingested/index.csv "
                "(`leaf why IMAGE` shows it)"
            )
        if ruling not in ("keep", "drop", "relabel"):
            raise LeafError(f"{where}: unknown ruling {ruling!r}; valid: keep, drop, relabel")
        if ruling == "relabel":
            if label not in classes:
                raise LeafError(f"{where}: unknown label {label!r}; valid: {', '.join(classes)}")
            if picture in relabel:
                raise LeafError(f"{where}: a second relabel of {picture}; valid: one")
            relabel[picture] = list(classes).index(label)
        else:
            if label:
                raise LeafError(f"{where}: {ruling} with a label, {label!r}; valid: none, or the ruling relabel")
            if picture in verdicts:
                raise LeafError(f"{where}: a second ruling on {picture}, {verdicts[picture]} before; valid: one")
            verdicts[picture] = ruling
    return Rulings(
        frozenset(picture for picture, ruling in verdicts.items() if ruling == "keep"),
        frozenset(picture for picture, ruling in verdicts.items() if ruling == "drop"),
        relabel,
    )


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
) -> Decisions:
    """Decide on N images with `labels` int (N,), `hashes` text (N,), `copies` (N,) the smallest image number of each
    image's set of copies and `outlier` bool (N,).
    """
    ruled_keep, ruled_drop = np.isin(hashes, list(rulings.keep)), np.isin(hashes, list(rulings.drop))
    ruled_label = np.array([rulings.relabel.get(value, -1) for value in hashes], np.int64)
    label = np.where(ruled_label >= 0, ruled_label, labels)
    reason = np.full(len(labels), "", object)
    reason[outlier] = "outlier"
    reason[ruled_drop] = "override"
    reason[ruled_keep] = ""
    standing = reason == ""

    label, dropped, found = _settle(label, ruled_label, copies, standing, conflicts)
    dropped &= ~ruled_keep
    reason[dropped] = "conflict"
    standing &= ~dropped

    copy_of = np.full(len(labels), -1, np.int64)
    if duplicates == "remove":
        _remove_copies(hashes, copies, standing, ruled_keep, reason, copy_of)
    kept = reason == ""
    reason[kept & (label != labels)] = "relabelled"
    reason[kept & ruled_keep] = "override"
    return Decisions(label, kept, reason, copy_of, found)


def _settle(
    label: np.ndarray, ruled_label: np.ndarray, copies: np.ndarray, standing: np.ndarray, policy: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Settle each set of standing copies with different labels: new labels, the images to drop, sets found.

    A person's label for one of the copies is theirs all. A majority needs more than half: a tie is dropped.
    """
    label, dropped = label.copy(), np.zeros(len(label), bool)
    low, high = np.full(len(label), 2), np.full(len(label), -1)
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
        ones = int(label[members].sum())
        if policy == "drop" or (policy == "majority" and 2 * ones == len(members)):
            dropped[members] = True
        elif policy == "majority":
            label[members] = int(2 * ones > len(members))
    return label, dropped, found


def _remove_copies(
    hashes: np.ndarray,
    copies: np.ndarray,
    standing: np.ndarray,
    ruled_keep: np.ndarray,
    reason: np.ndarray,
    copy_of: np.ndarray,
) -> None:
    """Mark, in `reason` and `copy_of`, each standing image beyond the first of its set of copies.

    A picture that a person keeps stays beside the first of its set, once.
    """
    first_of_set: dict[int, int] = {}
    first_of_hash: dict[str, int] = {}
    for image in np.flatnonzero(standing).tolist():
        first = first_of_set.setdefault(int(copies[image]), image)
        same = first_of_hash.setdefault(hashes[image], image)
        if first == image or (ruled_keep[image] and same == image):
            continue
        reason[image] = "duplicate" if same != image else "near_duplicate"
        copy_of[image] = same if reason[same] == "" else first
