"""Draw stratified splits and folds that keep groups together, and check that no image or group is in two splits.

Groups are drawn in the order of the smallest keyed hash of their image files: first for test, then for validation. This
order does not depend on file names, file order, decoding or other images. Renaming a folder does not change the split,
adding images moves few, and a larger validation split leaves the test split unchanged. An image that joins a group can
only move the group toward test, so a test image rarely becomes a training image. Given and pinned splits never change.

Changing the image size moves the few images whose groups change, because `clean` compares resized pixels: 3 to 5 of 970
at 64, 128 and 224 pixels.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from leaf.errors import LeafError

SPLITS = ("train", "validation", "test")
PINNED, PIN_COLUMNS = "data/pinned.csv", ("file_hash", "split")


def split_images(
    images: pd.DataFrame, validation_size: int | float, test_size: int | float, classes: Sequence[str]
) -> pd.DataFrame:
    """Split images into train, validation and test.

    Sizes are numbers of images or fractions below 1. Counts are exact if the group sizes allow it, otherwise as close
    as possible. Given splits take precedence: they count toward the sizes, and the other images fill the rest. If every
    image has a split, the sizes are ignored; a missing validation split is drawn from the training images.

    `images` has a row per kept image: `image`, `label` (an index into `classes`), `group`, `key` (from `draw_keys`) and
    `split` (given or pinned, or ""). The result is `image,split`, ordered by image.

    Raises:
        LeafError: if a group has two given splits, there are too few images, or a class has too few groups.
    """
    groups = _group_table(images, len(classes))
    labels = list(range(len(classes)))  # columns with the number of images of each class
    counts = groups[labels].sum().to_numpy()
    asked = {"test": images_asked(test_size, len(images)), "validation": images_asked(validation_size, len(images))}
    _check_request(groups, asked, classes)
    for name, later in (("test", 2), ("validation", 1)):
        pool = groups["split"].eq("")
        if name == "validation" and not pool.any() and not groups["split"].eq(name).any():
            pool = groups["given"].eq("train")
        if not pool.any():
            continue
        quota = apportion(asked[name], counts) - groups.loc[groups["split"].eq(name), labels].sum().to_numpy()
        free = groups.loc[pool, labels].sum().to_numpy()
        for wanted, there, label in zip(quota, free, classes, strict=True):
            if wanted > there + 1:  # rounding may require one more image than a class has left
                raise LeafError(
                    f"{name}_size: requires {wanted} more {label} images; images not yet assigned to a split: {there}. "
                    f"Reduce {name}_size."
                )
        groups.loc[_draw(groups.loc[pool, labels], np.clip(quota, 0, free), later), "split"] = name
    groups.loc[groups["split"].eq(""), "split"] = "train"
    _check_result(groups, asked, classes)
    drawn = images["group"].map(groups["split"])
    return pd.DataFrame({"image": images["image"], "split": drawn}).sort_values("image", ignore_index=True)


def _group_table(images: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Return one row per group in draw order: image counts by class (0, 1, …), and the given split or ""."""
    given = images[images["split"].ne("")]
    _check_group_splits(
        given, "data/ingested/index.csv", "Assign both to the same split, or drop one in data/overrides.csv."
    )
    if unknown := set(given["split"]) - set(SPLITS):
        raise LeafError(f"data/ingested/index.csv: split: {min(unknown)!r}; valid: {', '.join(SPLITS)}")
    table = images.groupby(["group", "label"]).size().unstack(fill_value=0)
    table = table.reindex(columns=range(classes), fill_value=0)
    table["key"] = images.groupby("group")["key"].first()
    table["given"] = table["split"] = given.groupby("group")["split"].first().reindex(table.index, fill_value="")
    return table.sort_index().sort_values("key", kind="stable")


def _check_group_splits(given: pd.DataFrame, file: str, remedy: str) -> None:
    """Raise LeafError if a group of `given` (`image,group,split`) has two splits."""
    splits = given.groupby("group")["split"].nunique()
    divided = splits.index[splits > 1]
    if len(divided):
        members = given[given["group"].eq(divided[0])].drop_duplicates("split").sort_values("image")
        names = members["source"] if "source" in members else "image " + members["image"].astype(str)
        named = " and ".join(f"{name} ({split})" for name, split in zip(names, members["split"], strict=True))
        raise LeafError(f"{file}: split: {named} are in the same group, but a group must be in one split. {remedy}")


def draw_keys(groups: pd.Series, file_hashes: pd.Series, seed: int) -> pd.Series:
    """Return a random sort key, text (N,), for each image's group.

    `groups` and `file_hashes` have one entry per image. Groups with identical files (`grouping: none`) get different
    keys.
    """
    again = groups.groupby(file_hashes).rank("dense").astype(int).astype(str)
    texts = f"{seed} " + file_hashes + " " + again
    places = texts.map(lambda text: hashlib.blake2b(text.encode(), digest_size=8).hexdigest())
    return groups.map(places.sort_values().groupby(groups).first())  # `min` of text is slow


def pinned_splits(images: pd.DataFrame, pins: pd.DataFrame) -> pd.Series:
    """Return each image's given split, otherwise its group's pinned split, otherwise "", as text (N,).

    `images` has `image,kept,group,file_hash,split` and includes removed images, whose pins apply to the kept copies.
    `pins` has `file_hash,split`.

    Raises:
        LeafError: if a group has two splits.
    """
    pins = pins.assign(split=pins["split"].str.lower())
    if unknown := set(pins["split"]) - set(SPLITS):
        raise LeafError(f"{PINNED}: split: {min(unknown)!r}; valid: {', '.join(SPLITS)}")
    pinned = images.drop(columns="split").merge(pins, on="file_hash")
    given = images[images["kept"].eq(1) & images["split"].ne("")]
    remedy = "Give both the same split, or use `drop` or `apart` in data/overrides.csv."
    _check_group_splits(pd.concat([given, pinned]), f"{PINNED}, data/ingested/index.csv", remedy)
    of_group = pinned.drop_duplicates("group").set_index("group")["split"]
    return images["split"].where(images["split"].ne(""), images["group"].map(of_group).fillna(""))


def _draw(pool: pd.DataFrame, quota: np.ndarray, later: int) -> pd.Index:
    """Draw groups with about `quota` images of each class from `pool` (counts by class, in draw order).

    If a class has enough groups, at least one is drawn and at least one is left for each of the `later` splits.
    """
    sizes = pool.to_numpy()
    mixed = (sizes > 0).sum(axis=1) > 1
    # Draw groups with several classes first, up to their share of the quota; single-class groups fill the rest exactly.
    share = quota * sizes[mixed].sum(axis=0) / sizes.sum(axis=0).clip(min=1)
    taken = np.zeros(len(quota))
    drawn: list[int] = []
    for row in np.flatnonzero(mixed).tolist():
        if np.square(taken + sizes[row] - share).sum() < np.square(taken - share).sum():
            taken += sizes[row]
            drawn.append(row)
    for label, missing in enumerate((quota - taken).clip(min=0).astype(int).tolist()):
        pure = np.flatnonzero(~mixed & (sizes[:, label] > 0))
        of_size = sizes[pure, label]
        # Draw in order as far as possible, so that a growing data set moves few images; choose the last groups by size.
        first = int(np.searchsorted(of_size.cumsum(), missing - of_size.max(initial=0), side="right"))
        drawn.extend(pure[:first].tolist())
        missing -= int(of_size[:first].sum())
        pure, of_size = pure[first:], of_size[first:]
        chosen = nearest_sum(of_size.tolist(), missing)
        if missing and len(pure) and not first and not taken[label] and not chosen:
            chosen = [int(of_size.argmin())]  # the quota is far below a group's size
        there = int((sizes[:, label] > 0).sum() - (sizes[drawn, label] > 0).sum())
        chosen.sort(key=lambda position: -of_size[position])
        drawn.extend(pure[chosen[: max(there - later, 0)]].tolist())
    return pool.index[drawn]


def _check_request(groups: pd.DataFrame, asked: dict[str, int], classes: Sequence[str]) -> None:
    for label, name in enumerate(classes):
        given = set(groups.loc[groups[label] > 0, "given"])
        others = sorted(set(groups["given"]) - given - {""})
        if others and len(given) == 1 and given != {""}:
            raise LeafError(
                f"split: all images of {name} are in the given split {given.pop()} and none in "
                f"{' or '.join(others)}. Assign some of them to another split, leave the class out (ignore: [{name}]), "
                "or set columns.split=none to draw new splits."
            )
    if groups["given"].ne("").all():
        return
    counts = groups[list(range(len(classes)))]
    images = int(counts.to_numpy().sum())
    if sum(asked.values()) >= images:
        raise LeafError(
            f"validation_size, test_size: {asked['validation']} and {asked['test']} of {images} images leave none for "
            f"training. Use fewer than {images} in total."
        )
    if asked["validation"] < 1:
        raise LeafError(
            f"validation_size: rounds to 0 of {images} images. Increase it: early stopping requires at least one."
        )
    needed = 2 + (asked["test"] > 0)
    if small := _fewer(classes, counts.gt(0).sum(), needed):
        raise LeafError(
            f"data/cleaned/decisions.csv: too few groups of images for {needed} splits: {small}. Add images, leave a "
            f"class out (ignore){' or set test_size to 0' if needed == 3 else ''}."
        )


def _fewer(classes: Sequence[str], counts: Iterable[int], needed: int) -> str:
    return ", ".join(f"{name} has {count}" for name, count in zip(classes, counts, strict=True) if count < needed)


def _check_result(groups: pd.DataFrame, asked: dict[str, int], classes: Sequence[str]) -> None:
    found = groups.groupby("split")[list(range(len(classes)))].sum().reindex(SPLITS, fill_value=0)
    everything_given = groups["given"].ne("").all()
    for name in SPLITS:
        if name != "train" and (asked[name] < len(classes) or (everything_given and not found.loc[name].any())):
            continue  # too small for all classes, or not requested
        if absent := [label for label, there in zip(classes, found.loc[name], strict=True) if not there]:
            raise LeafError(
                f"data/split/splits.csv: no image of {', '.join(absent)} in {name}: there are too few groups, or they "
                "are too large. Change validation_size or test_size, add images, or leave a class out (ignore)."
            )


def images_asked(size: int | float, images: int) -> int:
    """Convert a split size to a number of images; a fraction of `images` is rounded half up."""
    return size if isinstance(size, int) else math.floor(size * images + 0.5)


def apportion(total: int, counts: np.ndarray) -> np.ndarray:
    """Divide `total` among classes in proportion to `counts` by the largest remainder method: int64 (C,).

    Each class gets its share rounded up or down, and at least one image if possible.
    """
    exact = total * counts / max(counts.sum(), 1)
    quota = np.floor(exact).astype(np.int64)
    for label in np.argsort(quota - exact, kind="stable")[: total - quota.sum()]:
        quota[label] += 1
    for label in np.flatnonzero((quota == 0) & (counts > 0)):
        richest = int(quota.argmax())
        if quota[richest] > 1:
            quota[richest] -= 1
            quota[label] += 1
    return quota


def nearest_sum(sizes: Sequence[int], target: int) -> list[int]:
    """Return positions in `sizes` whose sum is as close to `target` as possible, preferring early positions."""
    found: dict[int, list[int]] = {0: []}
    used: Counter[int] = Counter()
    for position, size in enumerate(sizes):
        used[size] += 1
        if target in found or used[size] * size >= target + 2 * size:
            continue  # more groups of this size add no new sums
        for total in [total for total in found if total < target and total + size not in found]:
            found[total + size] = [*found[total], position]
    return found[min(found, key=lambda total: (abs(total - target), total))]


def add_chosen(splits: pd.DataFrame, images: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Add images that a model selected for labeling to `splits`: to the split of their group, otherwise to train.

    These images are not a random sample, so they are not drawn for validation or test. `splits` has `image,split` of
    `images`; `images` and `chosen`, the images to add, have `image,group`.
    """
    of_group = splits.merge(images[["image", "group"]], on="image").drop_duplicates("group").set_index("group")["split"]
    added = pd.DataFrame({"image": chosen["image"], "split": chosen["group"].map(of_group).fillna("train")})
    return pd.concat([splits, added]).sort_values("image", ignore_index=True)


def fold_images(
    images: pd.DataFrame, folds: int, fold: int, validation_size: int | float, seed: int, classes: Sequence[str]
) -> pd.DataFrame:
    """Split images for one cross-validation fold: `fold` (from 0) of `folds` is the test split.

    Over all folds, each image is tested once, in class proportions as far as the groups allow (scikit-learn's
    StratifiedGroupKFold). The validation split, a number of images or a fraction of all, is drawn from the rest.
    `images` and the result have the same columns as in `split_images`.

    Raises:
        LeafError: if a split was given, or a class has fewer groups than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and only needed for folds

    if images["split"].ne("").any():
        raise LeafError(f"folds: {folds}, but the data set defines splits. Set folds to 0, or columns.split to none.")
    images = images.sort_values("key", kind="stable", ignore_index=True)  # so that file names do not affect the folds
    groups = images.groupby("label")["group"].nunique().reindex(range(len(classes)), fill_value=0)
    if small := _fewer(classes, groups, folds):
        raise LeafError(
            f"folds: {folds}: too few groups of images: {small}. Reduce folds, add images, or leave a class out "
            "(ignore)."
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, test = list(splitter.split(images, images["label"], images["key"]))[fold]
    splits = split_images(images.iloc[rest], images_asked(validation_size, len(images)), 0, classes)
    tested = pd.DataFrame({"image": images["image"].iloc[test], "split": "test"})
    return pd.concat([splits, tested]).sort_values("image", ignore_index=True)


def shared_groups(splits: pd.DataFrame, decisions: pd.DataFrame) -> pd.Series:
    """Return the splits, joined by " and ", of each group of `decisions` that is in more than one split."""
    table = splits.merge(decisions[["image", "group"]], on="image").drop_duplicates(["group", "split"])
    table = table[table["group"].duplicated(keep=False)]
    return table.sort_values("split").groupby("group")["split"].agg(" and ".join)


def check_splits(splits: pd.DataFrame, decisions: pd.DataFrame, leaky: bool = False) -> None:
    """Raise LeafError unless every kept image and no other image is in exactly one split, and no group is in two.

    `splits` has `image,split`; `decisions` has `image,kept,group`. With `leaky`, splits may share groups.
    """
    images, kept = splits["image"], decisions.loc[decisions["kept"].eq(1), "image"]
    faults = {
        "has two rows": images[images.duplicated()],
        "has a split, but `clean` removed it": images[~images.isin(kept)],
        "has no split, but `clean` kept it": kept[~kept.isin(images)],
    }
    for fault, wrong in faults.items():
        if len(wrong):
            affected = f"image {wrong.min()} {fault}; images affected: {len(wrong)}"
            raise LeafError(f"data/split/splits.csv: {affected}. Run `dvc repro split`.")
    shared = shared_groups(splits, decisions)
    if len(shared) and not leaky:
        raise LeafError(
            f"data/split/splits.csv: group {shared.index[0]} is in {shared.iloc[0]}; groups affected: {len(shared)}. "
            "Run `dvc repro split`."
        )


def check_synthetic(synthetic: pd.DataFrame, splits: pd.DataFrame) -> None:
    """Raise LeafError if the `parent` or `neighbour` of a synthetic image is not in the training split."""
    train = splits.loc[splits["split"].eq("train"), "image"]
    for role in ("parent", "neighbour"):
        foreign = synthetic.loc[~synthetic[role].isin(train), ["image", role]]
        if len(foreign):
            image, other = foreign.iloc[0]
            raise LeafError(
                f"data/balanced/index.csv: synthetic image {image} has the {role} {other}, which is not in train; "
                f"images affected: {len(foreign)}. Run `dvc repro balance`."
            )
