"""`leaf why`: explain what each stage did with an image."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from leaf.clean.decisions import COLUMNS, NAMES, TEXT
from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError, plural
from leaf.store import read_array, read_classes, read_table

INDEX = "data/ingested/index.csv"
MOST_NAMED = 6  # maximum number of images listed per line; the rest are counted

_REASONS = {
    "outlier": "outlier",
    "duplicate": "copy of image {copy_of}, which is kept",
    "near_duplicate": "near duplicate of image {copy_of}, which is kept",
    "shared_split": "same group as image {copy_of}, which is in another given split",
    "conflict": "copies with different labels",
    "override": "manual decision",
    "relabelled": "new label, from a manual decision or the majority of its copies",
}


def explain(image: str, folder: str | Path = ".") -> str:
    """Explain, line by line, what each stage did with `image`, a number or a source name.

    Raises LeafError if the image does not exist or a table is damaged.
    """
    root = Path(folder)
    classes = read_classes(root)
    index = read_table(
        root / INDEX,
        ("image", "source", "label", "group", "split", "hash", "file_hash", "flags"),
        text=("source", "group", "split", "hash", "file_hash", "flags"),
    )
    row = index.iloc[_find(image, index)]
    if row["label"] >= len(classes):
        raise LeafError(f"{INDEX}: does not match data/ingested/classes.csv. Run `dvc repro` or `dvc checkout`.")
    number = int(row["image"])
    lines = [
        ("image", f"{number}, source {row['source']}, ingested as {classes[row['label']]}"),
        ("hash", f"file {row['file_hash']}, pixels {row['hash']}"),
    ]
    if row["flags"]:
        lines.append(("flags", row["flags"].replace(" ", ", ")))
    if row["group"]:
        lines.append(("group", f"{row['group']}, given with the data set"))
    lines += _decisions(root, index[index["hash"].eq(row["hash"])])
    for name, path, explain_stage in _STAGES:
        if not (root / path).exists():
            lines.append((name, f"not run yet ({path} is missing)"))
            continue
        try:
            lines += explain_stage(root / path, number, classes)
        except IndexError:
            raise LeafError(f"{path}: does not match {INDEX}. Run `dvc repro` or `dvc checkout`.") from None
    return "\n".join(f"{name:<9}{text}".rstrip() for name, text in lines)


def _find(image: str, index: pd.DataFrame) -> int:
    """Return the row of `index` with this number, source, or unique end of a source."""
    if image.isdecimal():
        if int(image) < len(index):
            return int(image)
        raise LeafError(f"why: image {image} does not exist; valid: 0 to {len(index) - 1}, or a source name")
    source = index["source"]
    for same in (source == image, source.str.endswith(f"/{image}")):
        if same.sum() == 1:
            return int(same.to_numpy().argmax())
        if same.sum() > 1:
            raise LeafError(
                f"why: {same.sum()} images have the name {image}. Use one of {_some(source[same].tolist())}."
            )
    raise LeafError(
        f"why: image {image} does not exist; valid: a number from 0 to {len(index) - 1}, or a source name such as "
        f"{source.iloc[0]}"
    )


def _decisions(root: Path, image_rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the manual decisions on an image. `image_rows` contains the rows of `index` with its pixels."""
    path = root / "data/overrides.csv"
    if not path.exists():
        return []
    table = read_edited_table(path, COLUMNS, TEXT).reindex(columns=list(TEXT)).fillna("")
    called = {name for column in NAMES for name in image_rows[column]}
    given = table["hash"].str.strip()
    mine = table[given.isin(called) | given.str.lower().isin(called)]
    rows = zip(mine["ruling"], mine["label"] + mine["other"], mine["who"], mine["why"], strict=True)
    return [
        ("override", f"{f'{kind} {what}'.strip()}, by {who or 'an unnamed person'}: {reason or 'no reason given'}")
        for kind, what, who, reason in rows
    ]


def _cleaned(path: Path, image: int, classes: Sequence[str]) -> list[tuple[str, str]]:
    decisions = read_table(path, ("image", "label", "kept", "reason"), text=("reason", "reference"))
    row = decisions.iloc[image]
    reason_text = _REASONS.get(row["reason"], row["reason"]).format(copy_of=_whole(row["copy_of"]))
    if row["reason"] == "outlier":
        reason_text += f", {row['distance']:.4g} (mean squared error) from reference {row['reference']}"
    outcome = f"kept as {classes[row['label']]}" if row["kept"] else "removed"
    lines = [("clean", f"{outcome}: {reason_text}" if reason_text else outcome)]
    group = decisions.index[decisions["group"] == row["group"]].tolist()
    if len(group) > 1:
        lines.append(
            (
                "",
                f"in group {row['group']} with {plural(len(group) - 1, 'other image')}: {_some(group)}",
            )
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
            text = [str(other) for other in others]
        else:
            errors = rows["aligned_mse"] if kind == "aligned" else rows["mse"]
            text = [f"{other} ({error:.3g})" for other, error in zip(others, errors, strict=True)]
        lines.append(("", f"{kind} pairs{'' if kind == 'exact' else ' (mean squared error)'}: {_some(text)}"))
    return lines


def _split(path: Path, image: int, _classes: Sequence[str]) -> list[tuple[str, str]]:
    table = read_table(path, ("image", "split"), text=("split",))
    mine = table.loc[table["image"] == image, "split"]
    return [("split", mine.iloc[0] if len(mine) else "none: the image was not kept")]


def _balanced(path: Path, image: int, _classes: Sequence[str]) -> list[tuple[str, str]]:
    table = read_table(path, ("image", "parent", "neighbour"))
    parent = table.loc[table["parent"] == image, "image"].tolist()
    neighbour = table.loc[(table["neighbour"] == image) & (table["parent"] != image), "image"].tolist()
    text = [
        f"{role} of {len(rows)} synthetic {'image: row' if len(rows) == 1 else 'images: rows'} {_some(rows)}"
        for role, rows in (("parent", parent), ("neighbor", neighbour))
        if rows
    ]
    return [("balance", "; ".join(text) or "not used for synthetic images")]


def _scored(path: Path, image: int, classes: Sequence[str]) -> list[tuple[str, str]]:
    columns = ("image", "source", "split", "label", "predicted", "probability")
    table = read_table(path, columns, text=("source", "split"))
    mine = table[table["image"] == image]
    if mine.empty:
        return [("scored", "not predicted: neither a validation nor a test image")]
    row = mine.iloc[0]
    right = "right" if row["predicted"] == row["label"] else f"wrong: the label is {classes[row['label']]}"
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
    """List the first few items and count the rest."""
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return ", ".join(map(str, items[:MOST_NAMED])) + more


_STAGES: tuple[tuple[str, str, Callable[[Path, int, Sequence[str]], list[tuple[str, str]]]], ...] = (
    ("clean", "data/cleaned/decisions.csv", _cleaned),
    ("split", "data/split/splits.csv", _split),
    ("balance", "data/balanced/index.csv", _balanced),
    ("scored", "data/scored/predictions.csv", _scored),
)
