"""Each planted leak is rejected."""

import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.split.stratified_split import check_splits, check_synthetic, shared_groups

DECISIONS = pd.DataFrame({"image": [0, 1, 2, 3, 4], "kept": [1, 1, 1, 1, 0], "group": [0, 0, 2, 3, 0]})
SPLITS = pd.DataFrame({"image": [0, 1, 2, 3], "split": ["train", "train", "validation", "test"]})
SYNTHETIC = pd.DataFrame({"image": [0, 1], "parent": [0, 1], "neighbour": [1, 0]})


def test_valid_split_passes():
    check_splits(SPLITS, DECISIONS)


def test_group_in_two_splits_is_rejected():
    leaking = SPLITS.assign(split=["train", "test", "validation", "test"])
    with pytest.raises(LeafError, match=r"group 0 .*test.*train"):
        check_splits(leaking, DECISIONS)


def test_leaky_splits_may_share_groups_but_not_omit_images():
    leaky = SPLITS.assign(split=["train", "test", "validation", "test"])
    check_splits(leaky, DECISIONS, leaky=True)
    with pytest.raises(LeafError, match=r"image 3\b"):
        check_splits(leaky.iloc[:3], DECISIONS, leaky=True)


def test_groups_shared_between_splits_are_listed():
    assert len(shared_groups(SPLITS.assign(split=["train", "test", "validation", "test"]), DECISIONS)) == 1


def test_removed_image_with_a_split_is_rejected():
    returned = pd.concat([SPLITS, pd.DataFrame({"image": [4], "split": ["train"]})])
    with pytest.raises(LeafError, match=r"image 4\b"):
        check_splits(returned, DECISIONS)


def test_kept_image_without_a_split_is_rejected():
    with pytest.raises(LeafError, match=r"image 3\b"):
        check_splits(SPLITS.iloc[:3], DECISIONS)


def test_image_in_two_rows_is_rejected():
    with pytest.raises(LeafError, match=r"image 0\b"):
        check_splits(pd.concat([SPLITS, SPLITS.iloc[:1]]), DECISIONS)


def test_synthetic_images_with_parents_in_train_pass():
    check_synthetic(SYNTHETIC, SPLITS)


@pytest.mark.parametrize("role", ["parent", "neighbour"])
@pytest.mark.parametrize("image", [2, 3, 4])
def test_synthetic_image_with_a_parent_outside_train_is_rejected(role, image):
    with pytest.raises(LeafError, match=rf"synthetic image 1\b.*{role} {image}\b"):
        check_synthetic(SYNTHETIC.assign(**{role: [0, image]}), SPLITS)
