"""`leaf why`: one image followed through every table, in a few lines a person can read."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from leaf.clean.decisions import COLUMNS, NAMES, TEXT
from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError
from leaf.store import read_array, read_classes, read_table

MOST_NAMED = 6  # images named in one line; the rest are counted

_REASONS = {
    "outlier": "an outlier",
    "duplicate": "an exact copy of image {copy_of}, which stays",
    "near_duplicate": "a near copy of image {copy_of}, which stays",
    "shared_split": "it shows the same as image {copy_of}, which another given split holds",
    "conflict": "copies of it have another label",
    "override": "a person's ruling",
    "relabelled": "with a new label, by a ruling or the majority of its copies",
}


def explain(image: str, folder: str | Path = ".") -> str:
    """What happened to `image`, a number or a source name, in the project's `folder`, as lines of text.

    Tables of stages that have not run yet are named as such. Raises LeafError for an image that does not exist.
    """
    root = Path(folder)
    classes = read_classes(root)
    index = read_table(
        root / "data/ingested/index.csv",
        ("image", "source", "label", "group", "split", "hash", "file_hash", "flags"),
        text=("source", "group", "split", "hash", "file_hash", "flags"),
    )
    row = index.iloc[_find(image, index)]
    number = int(row["image"])
    lines = [
        ("image", f"{number}, source {row['source']}, ingested as {classes[row['label']]}"),
        ("hash", f"{row['file_hash']} of the file, {row['hash']} of the pixels"),
    ]
    if row["flags"]:
        lines.append(("flags", row["flags"].replace(" ", ", ")))
    if row["group"]:
        lines.append(("group", f"{row['group']}, given with the data set"))
    lines += _rulings(root, index[index["hash"].eq(row["hash"])])
    for name, path, tell in _STAGES:
        if (root / path).exists():
            lines += tell(root / path, number, classes)
        else:
            lines.append((name, f"this stage has not run yet ({path} is missing)"))
    return "\n".join(f"{name:<9}{text}".rstrip() for name, text in lines)


def _find(image: str, index: pd.DataFrame) -> int:
    """The row of `index` for a number, a source, or the end of a single source."""
    if image.isdecimal():
        if int(image) < len(index):
            return int(image)
        raise LeafError(f"why: there is no image {image}; valid: 0 to {len(index) - 1}, or a source name")
    source = index["source"]
    for same in (source == image, source.str.endswith(f"/{image}")):
        if same.sum() == 1:
            return int(same.to_numpy().argmax())
        if same.sum() > 1:
            raise LeafError(
                f"why: {same.sum()} images are called {image}; valid: one of {_some(source[same].tolist())}"
            )
    raise LeafError(
        f"why: there is no image {image}; valid: a number from 0 to {len(index) - 1}, or a source name "
        f"such as {source.iloc[0]}"
    )


def _rulings(root: Path, picture: pd.DataFrame) -> list[tuple[str, str]]:
    """What was ruled on a `picture`, all rows of the index that show it."""
    path = root / "data/overrides.csv"
    if not path.exists():
        return []
    table = read_edited_table(path, COLUMNS, TEXT).reindex(columns=list(TEXT)).fillna("")
    called = {name for column in NAMES for name in picture[column]}
    given = table["hash"].str.strip()
    mine = table[given.isin(called) | given.str.lower().isin(called)]
    told = zip(mine["ruling"], mine["label"] + mine["other"], mine["who"], mine["why"], strict=True)
    return [
        ("ruling", f"{f'{ruling} {what}'.strip()}, by {who or 'nobody named'}: {reason or 'no reason given'}")
        for ruling, what, who, reason in told
    ]


def _cleaned(path: Path, image: int, classes: Sequence[str]) -> list[tuple[str, str]]:
    decisions = read_table(path, ("image", "label", "kept", "reason"), text=("reason", "reference"))
    row = decisions.iloc[image]
    because = _REASONS.get(row["reason"], row["reason"]).format(copy_of=_whole(row["copy_of"]))
    if row["reason"] == "outlier":
        because += f", {row['distance']:.4g} (mean squared error) from reference {row['reference']}"
    verdict = f"kept as {classes[row['label']]}" if row["kept"] else "removed"
    lines = [("clean", f"{verdict}: {because}" if because else verdict)]
    group = decisions.index[decisions["group"] == row["group"]].tolist()
    if len(group) > 1:
        lines.append(
            ("", f"in group {row['group']} with {len(group) - 1} others, which stay in one split: {_some(group)}")
        )
    pairs = path.with_name("pairs.csv")
    return lines + (_pairs(pairs, image) if pairs.exists() else [])


def _pairs(path: Path, image: int) -> list[tuple[str, str]]:
    table = read_table(path, ("image", "other", "kind", "mse", "aligned_mse"), text=("kind", "transform"))
    mine = table[(table["image"] == image) | (table["other"] == image)]
    lines = []
    for kind, rows in mine.groupby("kind", sort=True):
        others = rows["image"].where(rows["other"] == image, rows["other"])
        if kind == "exact":
            said = [str(other) for other in others]
        else:
            errors = rows["aligned_mse"] if kind == "aligned" else rows["mse"]
            said = [f"{other} ({error:.3g})" for other, error in zip(others, errors, strict=True)]
        lines.append(("", f"{kind} pairs{'' if kind == 'exact' else ' (mean squared error)'}: {_some(said)}"))
    return lines


def _split(path: Path, image: int, _classes: Sequence[str]) -> list[tuple[str, str]]:
    table = read_table(path, ("image", "split"), text=("split",))
    mine = table.loc[table["image"] == image, "split"]
    return [("split", mine.iloc[0] if len(mine) else "none, it was not kept")]


def _balanced(path: Path, image: int, _classes: Sequence[str]) -> list[tuple[str, str]]:
    table = read_table(path, ("image", "parent", "neighbour"))
    parent = table.loc[table["parent"] == image, "image"].tolist()
    neighbour = table.loc[(table["neighbour"] == image) & (table["parent"] != image), "image"].tolist()
    said = [
        f"{role} of {len(rows)} synthetic {'image: row' if len(rows) == 1 else 'images: rows'} {_some(rows)}"
        for role, rows in (("parent", parent), ("neighbour", neighbour))
        if rows
    ]
    return [("balance", "; ".join(said) or "no synthetic image was made of it")]


def _scored(path: Path, image: int, classes: Sequence[str]) -> list[tuple[str, str]]:
    columns = ("image", "source", "split", "label", "predicted", "probability")
    table = read_table(path, columns, text=("source", "split"))
    mine = table[table["image"] == image]
    if mine.empty:
        return [("scored", "not predicted; only validation and test images are")]
    row = mine.iloc[0]
    right = "right" if row["predicted"] == row["label"] else f"wrong, it is {classes[row['label']]}"
    if len(classes) == 2:
        probable = f"probability of {classes[1]} {row['probability']:.3f}"
    else:
        probabilities = read_array(path.with_name("probabilities.npy"))[table.index[table["image"] == image][0]]
        likeliest = np.argsort(-probabilities, kind="stable")[:3]
        probable = "probability of " + ", ".join(f"{classes[label]} {probabilities[label]:.3f}" for label in likeliest)
    return [("scored", f"predicted {classes[row['predicted']]}, {right}; {probable}")]


def _whole(value: float) -> str:
    return "" if pd.isna(value) else str(int(value))


def _some(items: Sequence[object]) -> str:
    """The first few of `items`, and how many more there are."""
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return ", ".join(map(str, items[:MOST_NAMED])) + more


_STAGES: tuple[tuple[str, str, Callable[[Path, int, Sequence[str]], list[tuple[str, str]]]], ...] = (
    ("clean", "data/cleaned/decisions.csv", _cleaned),
    ("split", "data/split/splits.csv", _split),
    ("balance", "data/balanced/index.csv", _balanced),
    ("scored", "data/scored/predictions.csv", _scored),
)
