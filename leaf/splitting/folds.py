"""Cross-validation: each image is in the test split of exactly one of N folds, groups whole."""

import pandas as pd

from leaf.errors import LeafError
from leaf.splitting.assign import split_images
from leaf.splitting.quotas import images_asked


def fold_images(
    images: pd.DataFrame, folds: int, fold: int, validation_size: int | float, seed: int, classes: list[str]
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
    images = images.sort_values("image", ignore_index=True)
    for label, name in enumerate(classes):
        present = images.loc[images["label"].eq(label), "group"].nunique()
        if present < folds:
            raise LeafError(f"folds: {folds}, and class {name} has {present} groups; valid: at most {present}")
    parted = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, test = list(parted.split(images, images["label"], images["group"]))[fold]
    splits = split_images(images.iloc[rest], images_asked(validation_size, len(images)), 0, seed, classes)
    tested = pd.DataFrame({"image": images["image"].iloc[test], "split": "test"})
    return pd.concat([splits, tested]).sort_values("image", ignore_index=True)
