"""Each image is tested in exactly one fold. Folds keep groups together and preserve class proportions."""

import numpy as np
import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.split.stratified_split import check_splits, draw_keys, fold_images

CLASSES = ["healthy", "unhealthy"]


def all_folds(images, number, validation_size=0.15, seed=42):
    keyed = images.assign(key=draw_keys(images["group"], images["file_hash"], seed))
    return [fold_images(keyed, number, fold, validation_size, seed, CLASSES) for fold in range(number)]


def images_tested(splits):
    return splits.loc[splits["split"].eq("test"), "image"]


@pytest.mark.parametrize("width", [1, 3])
def test_each_image_is_tested_in_exactly_one_fold(make_images, width):
    images = make_images(90, 60, group_size=width)
    together = pd.concat([images_tested(splits) for splits in all_folds(images, 5)])
    assert sorted(together) == images["image"].tolist()


def test_splits_of_a_fold_share_no_group(make_images):
    images = make_images(90, 60, group_size=3)
    for splits in all_folds(images, 5):
        check_splits(splits, images)


def test_every_test_split_has_the_class_proportions_of_the_data(make_images):
    images = make_images(90, 60, group_size=2)
    for splits in all_folds(images, 5):
        labels = images.set_index("image")["label"].loc[images_tested(splits)]
        assert np.bincount(labels).tolist() == pytest.approx([18, 12], abs=2)


def test_validation_size_is_a_fraction_of_all_images(make_images):
    for splits in all_folds(make_images(90, 60), 5, 0.2):
        assert splits["split"].value_counts().to_dict() == {"train": 90, "test": 30, "validation": 30}


def test_folds_do_not_depend_on_row_order(make_images):
    images = make_images(90, 60, group_size=2)
    shuffled = images.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(*(all_folds(each, 3)[1] for each in (images, shuffled)))


def test_different_seed_gives_different_folds(make_images):
    one, other = (images_tested(all_folds(make_images(90, 60), 5, seed=seed)[0]).tolist() for seed in (1, 2))
    assert one != other


def test_given_split_is_rejected(make_images):
    with pytest.raises(LeafError, match=r"folds: 5.*columns\.split"):
        all_folds(make_images(90, 60).assign(split="train"), 5)


def test_more_folds_than_a_class_has_groups_are_rejected(make_images):
    with pytest.raises(LeafError, match=r"folds: 6.*unhealthy has 5"):
        all_folds(make_images(90, 50, group_size=10), 6)
