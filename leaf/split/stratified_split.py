"""Draw the splits: groups whole, class proportions kept, a split that the user gave untouched.

The position of a group in the draw is the smallest keyed hash of its images' files. It does not depend on the order or
names of files, on the other images, or on how they are decoded. Renaming a folder keeps every image in its split.
Adding images keeps nearly all of them, and a larger validation split leaves the test split as it was. Another image
size moves the few images whose groups change, because `clean` finds copies and crops on the resized pixels:
3 to 5 of 970 at 64, 128 and 224 pixels. The lowest positions are tested, the next validate, and an image that joins a
group can only lower its position, so a tested image rarely becomes a training image when the set grows. Pinned images
never move.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from leaf.errors import LeafError

SPLITS = ("train", "validation", "test")
PINNED, PIN_COLUMNS = "data/pinned.csv", ("file_hash", "split")


def split_images(
    images: pd.DataFrame, validation_size: int | float, test_size: int | float, classes: Sequence[str]
) -> pd.DataFrame:
    """Part images into train, validation and test.

    `images`: one row per kept image with `image`, `label` (a place in `classes`), `group`, `key` (of the group, from
    `draw_keys`) and `split`, the one that was given or pinned, or "". Sizes are numbers or, below 1, fractions of them;
    `test_size` 0 means no test split. Returns `image,split`, by image. Counts are exact where the groups' sizes allow
    it, else as near as they come.

    Given splits win: they count towards the sizes, the images without one fill what is missing, and where every image
    has one the sizes are not used. Only where that leaves no validation split is it drawn from the training images.

    Raises LeafError where a group was given two splits, where more is asked for than there is, or where a class has
    too few groups for the splits.
    """
    groups = _group_table(images, len(classes))
    labels = list(range(len(classes)))  # the columns that count a group's images of each class
    counts = groups[labels].sum().to_numpy()
    _check_given(groups, classes)
    asked = {
        "test": images_asked(test_size, len(images)),
        "validation": images_asked(validation_size, len(images)),
    }
    _check_request(groups, counts, asked, classes)
    for name, later in (("test", 2), ("validation", 1)):
        pool = groups["split"].eq("")
        if name == "validation" and not pool.any() and not groups["split"].eq(name).any():
            pool = groups["given"].eq("train")
        if not pool.any():
            continue
        quota = apportion(asked[name], counts) - groups.loc[groups["split"].eq(name), labels].sum().to_numpy()
        quota = quota.clip(min=0)
        free = groups.loc[pool, labels].sum().to_numpy()
        _check_pool(name, quota, free, classes)
        quota = np.minimum(quota, free)
        groups.loc[_draw(groups.loc[pool, labels], quota, later), "split"] = name
    groups.loc[groups["split"].eq(""), "split"] = "train"
    _check_result(groups, asked, classes)
    drawn = images["group"].map(groups["split"])
    return pd.DataFrame({"image": images["image"], "split": drawn}).sort_values("image", ignore_index=True)


def _group_table(images: pd.DataFrame, classes: int) -> pd.DataFrame:
    """One row per group, in the order of the draw: images of each class (0, 1, …), the split that was given, or ""."""
    given = images[images["split"].ne("")]
    _refuse_torn(given, "data/ingested/index.csv", "give its images the same split, or drop one in data/overrides.csv")
    unknown = set(given["split"]) - set(SPLITS)
    if unknown:
        raise LeafError(f"data/ingested/index.csv: split: {min(unknown)!r}; valid: {', '.join(SPLITS)}")
    table = images.groupby(["group", "label"]).size().unstack(fill_value=0)
    table = table.reindex(columns=range(classes), fill_value=0)
    table["key"] = images.groupby("group")["key"].first()
    table["given"] = given.groupby("group")["split"].first()
    table["given"] = table["given"].fillna("")
    table["split"] = table["given"]
    return table.sort_index().sort_values("key", kind="stable")


def _refuse_torn(given: pd.DataFrame, file: str, remedy: str) -> None:
    """Raise LeafError where a group of `given` (`image,group,split`) has two splits."""
    splits = given.groupby("group")["split"].nunique()
    torn = splits.index[splits > 1]
    if len(torn):
        members = given[given["group"].eq(torn[0])].drop_duplicates("split").sort_values("image")
        names = members["source"] if "source" in members else "image " + members["image"].astype(str)
        named = " and ".join(f"{name} ({split})" for name, split in zip(names, members["split"], strict=True))
        raise LeafError(f"{file}: split: {named} are in one group, and a group stays in one split; {remedy}")


def draw_keys(groups: pd.Series, file_hashes: pd.Series, seed: int) -> pd.Series:
    """The place in the draw of each image's group, text like `groups` and `file_hashes` (N,), one row an image.

    Groups that hold equal files (`grouping: none`) get places of their own.
    """
    again = groups.groupby(file_hashes).rank("dense").astype(int).astype(str)
    texts = f"{seed} " + file_hashes + " " + again
    places = texts.map(lambda text: hashlib.blake2b(text.encode(), digest_size=8).hexdigest())
    return groups.map(places.sort_values().groupby(groups).first())  # `min` of text is a call for each group


def pinned_splits(images: pd.DataFrame, pins: pd.DataFrame) -> pd.Series:
    """The split that each image was given or that `pins` (`file_hash,split`) keep its group in, else "": text (N,).

    `images` has `image,kept,group,file_hash,split`, the removed ones too: their pins hold for the copies that stay.
    Raises LeafError where a group has two splits so.
    """
    pins = pins.assign(split=pins["split"].str.lower())
    if unknown := set(pins["split"]) - set(SPLITS):
        raise LeafError(f"{PINNED}: split: {min(unknown)!r}; valid: {', '.join(SPLITS)}")
    pinned = images.drop(columns="split").merge(pins, on="file_hash")
    given = images[images["kept"].eq(1) & images["split"].ne("")]
    remedy = "rule its images apart or drop one in data/overrides.csv, or change the split or the pin of one"
    _refuse_torn(pd.concat([given, pinned]), f"{PINNED}, data/ingested/index.csv", remedy)
    of_group = pinned.drop_duplicates("group").set_index("group")["split"]
    return images["split"].where(images["split"].ne(""), images["group"].map(of_group).fillna(""))


def _draw(pool: pd.DataFrame, quota: np.ndarray, later: int) -> pd.Index:
    """The groups of `pool`, their counts by class in drawing order, that hold `quota` images of each class.

    Where a class has groups enough, one at least is drawn, and one at least is left for each of the `later` splits.
    """
    sizes = pool.to_numpy()
    mixed = (sizes > 0).sum(axis=1) > 1
    # Groups of several classes first, to their share of the quota: those of one class then make up the exact rest.
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
        # By their places as far as possible, so that a set that grows moves few; the last ones by size, to be exact.
        first = int(np.searchsorted(of_size.cumsum(), missing - of_size.max(initial=0), side="right"))
        drawn.extend(pure[:first].tolist())
        missing -= int(of_size[:first].sum())
        pure, of_size = pure[first:], of_size[first:]
        available = dict(zip(*(part.tolist() for part in np.unique(of_size, return_counts=True)), strict=True))
        numbers = groups_by_size(available, missing)
        if missing and len(pure) and not first and not taken[label] and not any(numbers.values()):
            numbers[min(numbers)] = 1  # the quota is far below a group's size
        there = int((sizes[:, label] > 0).sum() - (sizes[drawn, label] > 0).sum())
        while sum(numbers.values()) > max(there - later, 0):
            numbers[min(size for size, number in numbers.items() if number)] -= 1
        for size, number in numbers.items():
            drawn.extend(pure[of_size == size][:number].tolist())
    return pool.index[drawn]


def _check_request(groups: pd.DataFrame, counts: np.ndarray, asked: dict[str, int], classes: Sequence[str]) -> None:
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
    present = groups[list(range(len(classes)))].gt(0).sum()
    small = [f"{name} has {there}" for name, there in zip(classes, present, strict=True) if there < needed]
    if small:
        raise LeafError(
            f"data/cleaned/decisions.csv: too few groups of images for {needed} splits: {', '.join(small)}; add "
            f"photographs, leave a class out (ignore){' or set test_size to 0' if needed == 3 else ''}"
        )


def _check_given(groups: pd.DataFrame, classes: Sequence[str]) -> None:
    """Raise LeafError for a class whose images were all given to one of several splits, so that another lacks it."""
    for label, name in enumerate(classes):
        given = set(groups.loc[groups[label] > 0, "given"])
        others = sorted(set(groups["given"]) - given - {""})
        if others and len(given) == 1 and given != {""}:
            raise LeafError(
                f"split: all images of {name} were given to {given.pop()} and none to {' or '.join(others)}. Give some "
                f"of them another split, leave the class out (ignore: [{name}]), or set columns.split=none to draw the "
                "splits instead of reading them from the table"
            )


def _check_pool(name: str, quota: np.ndarray, free: np.ndarray, classes: Sequence[str]) -> None:
    for wanted, there, label in zip(quota, free, classes, strict=True):
        if wanted > there + 1:  # rounding may ask one more of a class whose images are all pinned elsewhere
            raise LeafError(
                f"{name}_size: asks for {wanted} more {label} images, and {there} are left that no split was given "
                "or drawn for; ask for fewer"
            )


def _check_result(groups: pd.DataFrame, asked: dict[str, int], classes: Sequence[str]) -> None:
    """Every split that was asked for, of as many images as there are classes, holds images of each."""
    found = groups.groupby("split")[list(range(len(classes)))].sum()
    everything_given = groups["given"].ne("").all()
    wanted = [name for name in SPLITS if name == "train" or (name in found.index if everything_given else asked[name])]
    for name in wanted:
        present = found.loc[name] if name in found.index else [0] * len(classes)
        absent = [label for label, there in zip(classes, present, strict=True) if not there]
        if absent and (name == "train" or asked[name] >= len(classes)):
            raise LeafError(
                f"data/split/splits.csv: no image of {', '.join(absent)} in {name}; the groups of images are too few "
                "or too large for these sizes, change validation_size or test_size, add photographs or leave "
                "a class out (ignore)"
            )


def images_asked(size: int | float, images: int) -> int:
    """A size as a number of images: a whole number as it is, a fraction of `images` rounded half up."""
    return size if isinstance(size, int) else math.floor(size * images + 0.5)


def apportion(total: int, counts: np.ndarray) -> np.ndarray:
    """Part `total` images over classes of `counts` images, int64 (C,), by largest remainder.

    Each class gets its share rounded up or down, and at least one where `total` and the class allow.
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


def groups_by_size(available: Mapping[int, int], target: int) -> dict[int, int]:
    """How many groups of each size to take so that their sizes add up to `target`, or as near to it as they can.

    `available` maps a group's size to the number of such groups. Among all ways to the same sum, each size is taken
    as nearly as possible in proportion to how often it occurs. A bounded knapsack over the distinct sizes, which are
    few: the reachable sums are the bits of one whole number.
    """
    sizes = sorted(available, reverse=True)
    if target <= 0 or not sizes:
        return dict.fromkeys(sizes, 0)
    reachable = _reachable_sums([(size, available[size]) for size in sizes], target + sizes[0])
    rest = _nearest_bit(reachable[0], target)
    images = sum(size * number for size, number in available.items())
    chosen = {}
    for size, smaller in zip(sizes, reachable[1:], strict=True):
        number = available[size]
        ideal = number * rest / max(images, 1)
        fitting = (n for n in _outward(ideal, min(number, rest // size)) if smaller >> (rest - n * size) & 1)
        chosen[size] = next(fitting)
        rest -= chosen[size] * size
        images -= number * size
    return chosen


def _reachable_sums(groups: list[tuple[int, int]], limit: int) -> list[int]:
    """For each position, the sums up to `limit` that the (size, number) pairs from there on reach, as bits."""
    mask = (1 << limit + 1) - 1
    sums = [1]
    for size, number in reversed(groups):
        bits, piece = sums[-1], 1
        while number > 0:  # 1, 2, 4, … groups at a time: every number of groups is a sum of such pieces
            step = min(piece, number)
            bits |= bits << step * size & mask
            number -= step
            piece *= 2
        sums.append(bits)
    return sums[::-1]


def _nearest_bit(bits: int, target: int) -> int:
    """The set bit nearest to `target`, the lower of two; bit 0 is always set."""
    below = (bits & (1 << target + 1) - 1).bit_length() - 1
    above = bits >> target + 1
    if not above:
        return below
    higher = target + (above & -above).bit_length()
    return below if target - below <= higher - target else higher


def _outward(ideal: float, highest: int) -> Iterator[int]:
    """The whole numbers from 0 to `highest`, nearest to `ideal` first."""
    low = min(math.floor(ideal), highest)
    high = low + 1
    while low >= 0 or high <= highest:
        if high > highest or (low >= 0 and ideal - low <= high - ideal):
            yield low
            low -= 1
        else:
            yield high
            high += 1


def fold_images(
    images: pd.DataFrame, folds: int, fold: int, validation_size: int | float, seed: int, classes: Sequence[str]
) -> pd.DataFrame:
    """Part images into train, validation and the test split of fold `fold` (from 0) of `folds`.

    `images` as for `split_images`; `validation_size` counts images, or is a fraction of all of them, and is drawn from
    what the fold leaves. Over the folds the test splits hold each image once, in the proportions of the classes as far
    as the groups allow (scikit-learn's StratifiedGroupKFold). Returns `image,split`, by image.

    Raises LeafError where a split was given, or a class has fewer groups than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # seconds that a plain split need not pay

    if images["split"].ne("").any():
        raise LeafError(
            f"folds: {folds}, and the data set gives images a split of their own; valid: 0 there, a given split stays"
        )
    images = images.sort_values("key", kind="stable", ignore_index=True)  # not by names or numbers
    groups = images.groupby("label")["group"].nunique().reindex(range(len(classes)), fill_value=0)
    small = [f"{name} has {there}" for name, there in zip(classes, groups, strict=True) if there < folds]
    if small:
        raise LeafError(
            f"folds: {folds}, too few groups of images: {', '.join(small)}; valid: at most {groups.min()}, or leave a "
            "class out (ignore)"
        )
    parted = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, test = list(parted.split(images, images["label"], images["key"]))[fold]
    splits = split_images(images.iloc[rest], images_asked(validation_size, len(images)), 0, classes)
    tested = pd.DataFrame({"image": images["image"].iloc[test], "split": "test"})
    return pd.concat([splits, tested]).sort_values("image", ignore_index=True)


def add_chosen(splits: pd.DataFrame, images: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Add the images that a model chose for labelling to `splits`: to the split of their group, or else to train.

    They are not a random sample, so they are not drawn for validation or test.

    Args:
        splits: `image,split` of `images`.
        images: `image,group`, the images that were drawn.
        chosen: `image,group`, the images to add.
    """
    of_group = splits.merge(images[["image", "group"]], on="image").drop_duplicates("group").set_index("group")["split"]
    added = pd.DataFrame({"image": chosen["image"], "split": chosen["group"].map(of_group).fillna("train")})
    return pd.concat([splits, added]).sort_values("image", ignore_index=True)


_SPLITS_FILE = "data/split/splits.csv"
_SYNTHETIC_FILE = "data/balanced/index.csv"


def shared_groups(splits: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Groups that stand in more than one split: `group,splits` (their names, joined by " and "); empty where none.

    `splits` has `image,split`; `decisions` has `image,group`.
    """
    table = splits.merge(decisions[["image", "group"]], on="image").drop_duplicates(["group", "split"])
    table = table[table["group"].duplicated(keep=False)]
    shared = table.sort_values("split").groupby("group")["split"].agg(" and ".join)
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
