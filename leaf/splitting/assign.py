"""Draw the splits: groups whole, class proportions kept, a split that the user gave untouched.

A group's place in the draw is a hash of the seed and of where its first image came from, so it depends neither on the
order of rows, nor on the other images, nor on pixels: a data set that grows keeps nearly all images in their splits,
another image size all of them, and a larger validation split leaves the test split as it was.
"""

import hashlib

import numpy as np
import pandas as pd

from leaf.errors import LeafError
from leaf.splitting.quotas import apportion, groups_by_size, images_asked

SPLITS = ("train", "validation", "test")
_COUNTS = ["first", "second"]  # a group's images of either class


def split_images(
    images: pd.DataFrame, validation_size: int | float, test_size: int | float, seed: int, classes: list[str]
) -> pd.DataFrame:
    """Part images into train, validation and test.

    `images`: one row per kept image with `image`, `label` (0 or 1), `group`, `origin` (the source of the group's
    first image) and `split`, the one the user gave or "". Sizes are numbers of images or, below 1, fractions of them;
    `test_size` 0 means no test split. Returns `image,split`, by image. Counts are exact where the groups' sizes allow
    it, else as near as they come.

    Given splits win: they count towards the sizes, the images without one fill what is missing, and where every image
    has one the sizes are not used. Only where that leaves no validation split is it drawn from the training images.

    Raises LeafError where a group was given two splits, where more is asked for than there is, or where a class has
    too few groups for the splits.
    """
    groups = _group_table(images, seed)
    counts = groups[_COUNTS].sum().to_numpy()
    asked = {
        "test": images_asked(test_size, len(images)),
        "validation": images_asked(validation_size, len(images)),
    }
    _check_request(groups, counts, asked, classes)
    for name in ("test", "validation"):
        pool = groups["split"].eq("")
        if name == "validation" and not pool.any() and not groups["split"].eq(name).any():
            pool = groups["given"].eq("train")
        if not pool.any():
            continue
        quota = apportion(asked[name], counts) - groups.loc[groups["split"].eq(name), _COUNTS].sum().to_numpy()
        quota = quota.clip(min=0)
        _check_pool(name, quota, groups.loc[pool, _COUNTS].sum().to_numpy(), classes)
        groups.loc[_draw(groups[pool], quota), "split"] = name
    groups.loc[groups["split"].eq(""), "split"] = "train"
    _check_result(groups, asked, classes)
    drawn = images["group"].map(groups["split"])
    return pd.DataFrame({"image": images["image"], "split": drawn}).sort_values("image", ignore_index=True)


def _group_table(images: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per group, in the order of the draw: images of either class, and the split that was given, or ""."""
    given = images[images["split"].ne("")]
    ambiguous = given.groupby("group")["split"].nunique()
    ambiguous = ambiguous[ambiguous > 1]
    if len(ambiguous):
        group = ambiguous.index[0]
        members = given[given["group"].eq(group)].drop_duplicates("split").sort_values("image")
        named = " and ".join(
            f"image {image} ({split})" for image, split in zip(members["image"], members["split"], strict=True)
        )
        raise LeafError(
            f"data/ingested/index.csv: split: group {group} holds {named}, and a group stays in one split; "
            "give its images the same split, or drop one in data/overrides.csv"
        )
    unknown = set(given["split"]) - set(SPLITS)
    if unknown:
        raise LeafError(f"data/ingested/index.csv: split: {min(unknown)!r}; valid: {', '.join(SPLITS)}")
    origins = images.drop_duplicates("group").set_index("group")["origin"]
    table = pd.DataFrame(
        {
            "first": images["label"].eq(0).groupby(images["group"]).sum(),
            "second": images["label"].eq(1).groupby(images["group"]).sum(),
            "key": origins.map(lambda origin: _key(seed, origin)),
            "given": given.groupby("group")["split"].first(),
        }
    )
    table["given"] = table["given"].fillna("")
    table["split"] = table["given"]
    return table.sort_index().sort_values("key", kind="stable")


def _key(seed: int, origin: str) -> str:
    return hashlib.blake2b(f"{seed} {origin}".encode(), digest_size=8).hexdigest()


def _draw(pool: pd.DataFrame, quota: np.ndarray) -> pd.Index:
    """The groups of `pool`, a group table in drawing order, that hold `quota` images of either class."""
    sizes = pool[_COUNTS].to_numpy()
    mixed = (sizes > 0).all(axis=1)
    # Groups of both classes first, to their share of the quota: the groups of one class then make up the exact rest.
    share = quota * sizes[mixed].sum(axis=0) / sizes.sum(axis=0).clip(min=1)
    taken = np.zeros(2)
    drawn: list[int] = []
    for row in np.flatnonzero(mixed).tolist():
        if np.square(taken + sizes[row] - share).sum() < np.square(taken - share).sum():
            taken += sizes[row]
            drawn.append(row)
    for label, missing in enumerate((quota - taken).clip(min=0).astype(int).tolist()):
        pure = np.flatnonzero(~mixed & (sizes[:, label] > 0))
        of_size = sizes[pure, label]
        available = dict(zip(*(part.tolist() for part in np.unique(of_size, return_counts=True)), strict=True))
        for size, number in groups_by_size(available, missing).items():
            drawn.extend(pure[of_size == size][:number].tolist())
    return pool.index[drawn]


def _check_request(groups: pd.DataFrame, counts: np.ndarray, asked: dict[str, int], classes: list[str]) -> None:
    if groups["given"].ne("").all():
        return
    images = int(counts.sum())
    if sum(asked.values()) >= images:
        raise LeafError(
            f"validation_size, test_size: {asked['validation']} and {asked['test']} images of {images} leave none to "
            f"train on; valid: together fewer than {images}"
        )
    if asked["validation"] < 1:
        raise LeafError(f"validation_size: no image of {images}; valid: at least one, early stopping needs some")
    needed = 2 + (asked["test"] > 0)
    for name, column in zip(classes, _COUNTS, strict=True):
        present = int(groups[column].gt(0).sum())
        if present < needed:
            raise LeafError(
                f"data/cleaned/decisions.csv: class {name} has {present} groups of images and {needed} splits need "
                f"one each; add photographs{' or set test_size to 0' if needed == 3 else ''}"
            )


def _check_pool(name: str, quota: np.ndarray, free: np.ndarray, classes: list[str]) -> None:
    for wanted, there, label in zip(quota, free, classes, strict=True):
        if wanted > there:
            raise LeafError(
                f"{name}_size: asks for {wanted} more {label} images, and {there} are left that no split was given "
                "or drawn for; ask for fewer"
            )


def _check_result(groups: pd.DataFrame, asked: dict[str, int], classes: list[str]) -> None:
    """Every split that was asked for, of two images or more, holds images of both classes."""
    found = groups.groupby("split")[_COUNTS].sum()
    everything_given = groups["given"].ne("").all()
    wanted = [name for name in SPLITS if name == "train" or (name in found.index if everything_given else asked[name])]
    for name in wanted:
        present = found.loc[name] if name in found.index else pd.Series(0, index=_COUNTS)
        for label, column in zip(classes, _COUNTS, strict=True):
            if not present[column] and (name == "train" or asked[name] > 1):
                raise LeafError(
                    f"data/split/splits.csv: no {label} image in {name}; its groups of images are too few or too "
                    "large for these sizes, change validation_size or test_size or add photographs"
                )
