"""Cross-validation folds that keep groups together."""

from collections.abc import Sequence

import pandas as pd

from leaf.errors import LeafError
from leaf.split.stratified_split import images_asked, split_images


def fold_images(
    images: pd.DataFrame, folds: int, fold: int, validation_size: int | float, seed: int, classes: Sequence[str]
) -> pd.DataFrame:
    """Split images into train, validation and the test split of fold `fold` (from 0) of `folds`.

    Over all folds, each image is tested once, in class proportions as far as the groups allow (scikit-learn's
    StratifiedGroupKFold). Validation, a number of images or a fraction of all, is drawn from the rest. `images` and the
    result have the same columns as in `split_images`.

    Raises:
        LeafError: if a split was given, or a class has fewer groups than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds, which a plain split saves

    if images["split"].ne("").any():
        raise LeafError(f"folds: {folds}, but the data set gives its images a split; valid: 0, or columns.split: none")
    images = images.sort_values("key", kind="stable", ignore_index=True)  # so that file names do not affect the folds
    groups = images.groupby("label")["group"].nunique().reindex(range(len(classes)), fill_value=0)
    small = [f"{name} has {there}" for name, there in zip(classes, groups, strict=True) if there < folds]
    if small:
        raise LeafError(
            f"folds: {folds}, too few groups of images: {', '.join(small)}; valid: at most {groups.min()}. Or leave a "
            "class out (ignore)."
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, test = list(splitter.split(images, images["label"], images["key"]))[fold]
    splits = split_images(images.iloc[rest], images_asked(validation_size, len(images)), 0, classes)
    tested = pd.DataFrame({"image": images["image"].iloc[test], "split": "test"})
    return pd.concat([splits, tested]).sort_values("image", ignore_index=True)
