"""Check that no group and no synthetic image leaks from one split to another."""

import pandas as pd

from leaf.errors import LeafError

_SPLITS_FILE = "data/split/splits.csv"
_SYNTHETIC_FILE = "data/balanced/index.csv"


def shared_groups(splits: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Return the groups in more than one split: `group,splits` (names joined by " and ").

    `splits` has `image,split`; `decisions` has `image,group`.
    """
    table = splits.merge(decisions[["image", "group"]], on="image").drop_duplicates(["group", "split"])
    table = table[table["group"].duplicated(keep=False)]
    shared = table.sort_values("split").groupby("group")["split"].agg(" and ".join)
    return pd.DataFrame({"group": shared.index, "splits": shared.to_numpy()})


def check_splits(splits: pd.DataFrame, decisions: pd.DataFrame, leaky: bool = False) -> None:
    """Raise LeafError unless each kept image, and no other, is in one split and no group is in two.

    `splits` has `image,split`; `decisions` has `image,kept,group`. A split that is `leaky` on purpose may share groups.
    """
    kept = set(decisions.loc[decisions["kept"].eq(1), "image"])
    twice = splits.loc[splits["image"].duplicated(), "image"]
    if len(twice):
        raise LeafError(f"{_SPLITS_FILE}: image {twice.iloc[0]} has two rows; an image has one split")
    returned = set(splits["image"]) - kept
    if returned:
        raise LeafError(
            f"{_SPLITS_FILE}: image {min(returned)} was removed by clean "
            f"({len(returned)} such images); only kept images have a split"
        )
    lost = kept - set(splits["image"])
    if lost:
        raise LeafError(
            f"{_SPLITS_FILE}: image {min(lost)} was kept by clean and has no split ({len(lost)} such images)"
        )
    shared = shared_groups(splits, decisions)
    if len(shared) and not leaky:
        first = shared.iloc[0]
        raise LeafError(
            f"{_SPLITS_FILE}: group {first['group']} is in {first['splits']} ({len(shared)} such groups), a leak; "
            "valid: each group in one split"
        )


def check_synthetic(synthetic: pd.DataFrame, splits: pd.DataFrame) -> None:
    """Raise LeafError if the `parent` or `neighbour` of a synthetic image is not in the training split."""
    train = splits.loc[splits["split"].eq("train"), "image"]
    for role in ("parent", "neighbour"):
        foreign = synthetic.loc[~synthetic[role].isin(train)]
        if len(foreign):
            image, other = int(foreign["image"].iloc[0]), int(foreign[role].iloc[0])
            raise LeafError(
                f"{_SYNTHETIC_FILE}: synthetic image {image} has the {role} {other}, which is not in train "
                f"({len(foreign)} such images), a leak; valid: training images only"
            )
