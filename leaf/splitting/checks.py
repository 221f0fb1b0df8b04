"""What must hold after every split: no leak. Called by the stages split and evaluate."""

import pandas as pd

from leaf.errors import LeafError

_SPLITS_FILE = "data/split/splits.csv"
_SYNTHETIC_FILE = "data/balanced/index.csv"


def shared_groups(splits: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Groups that stand in more than one split: `group,splits` (their names, joined by " and "); empty where none.

    `splits` has `image,split`; `decisions` has `image,group`.
    """
    table = splits.merge(decisions[["image", "group"]], on="image").drop_duplicates(["group", "split"])
    joined = table.sort_values("split").groupby("group")["split"].agg(" and ".join)
    shared = joined[table.groupby("group").size() > 1]
    return pd.DataFrame({"group": shared.index, "splits": shared.to_numpy()})


def check_splits(splits: pd.DataFrame, decisions: pd.DataFrame, leaky: bool = False) -> None:
    """Raise LeafError unless each kept image stands in one split, no other does, and no group is shared.

    `splits` has `image,split`; `decisions` has `image,kept,group`. Only a split that is
    `leaky` on purpose may share groups.
    """
    kept = set(decisions.loc[decisions["kept"].eq(1), "image"])
    twice = splits.loc[splits["image"].duplicated(), "image"]
    if len(twice):
        raise LeafError(f"{_SPLITS_FILE}: image {twice.iloc[0]} stands there twice; an image has one split")
    returned = set(splits["image"]) - kept
    if returned:
        raise LeafError(
            f"{_SPLITS_FILE}: image {min(returned)} was removed by clean and comes back "
            f"({len(returned)} such images); only kept images may stand there"
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
            f"{_SPLITS_FILE}: group {first['group']} is shared between {first['splits']} ({len(shared)} such groups); "
            "a leak: a group stays whole in one split"
        )


def check_synthetic(synthetic: pd.DataFrame, splits: pd.DataFrame) -> None:
    """Raise LeafError where a synthetic image's `parent` or `neighbour` stands outside the training split."""
    train = splits.loc[splits["split"].eq("train"), "image"]
    for role in ("parent", "neighbour"):
        foreign = synthetic.loc[~synthetic[role].isin(train)]
        if len(foreign):
            image, other = int(foreign["image"].iloc[0]), int(foreign[role].iloc[0])
            raise LeafError(
                f"{_SYNTHETIC_FILE}: synthetic image {image} has the {role} {other}, which is not in train "
                f"({len(foreign)} such images); a leak: only training images may be balanced"
            )
