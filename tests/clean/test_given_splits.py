"""Images shared by given splits: test takes precedence over validation, validation over train."""

import numpy as np
import pytest

from leaf.clean.clean import clean
from leaf.params import Params


@pytest.fixture
def run(pictures, index, no_overrides):
    """Clean six images and copies of the given ones."""

    def run(copies, splits, group=None, overrides=None):
        images = pictures(np.random.default_rng(3), 6)[[0, 1, 2, 3, 4, 5, *copies]]
        table = index(images, np.arange(len(images)) % 2 * 0, group).assign(split=splits)
        settings = Params(same_photo=False)
        return clean(images, table, [], no_overrides if overrides is None else overrides(table), settings)

    return run


SIX = ["train", "train", "validation", "validation", "test", "test"]


def test_the_copy_in_test_stays_before_validation_before_train(run):
    made = run([0, 2, 0, 1], [*SIX, "test", "train", "validation", "train"])
    out = made.decisions[made.decisions["kept"].eq(0)]
    assert out[["image", "reason", "copy_of"]].to_numpy().tolist() == [
        [0, "duplicate", 6],
        [7, "duplicate", 2],
        [8, "duplicate", 6],
        [9, "duplicate", 1],
    ]
    assert made.metrics["shared_between_splits"] == 3  # the copy within train is none


def test_each_pair_is_named_with_its_splits(run):
    line = run([0], [*SIX, "test"]).warnings[0]
    assert line.startswith("split: ")
    assert line.endswith("Removed: 0 (train) because of 6 (test)")


def test_images_of_one_plant_stay_in_the_split_that_ranks_first(run):
    made = run([], SIX, group=["a", "b", "a", "c", "b", "c"])
    out = made.decisions[made.decisions["kept"].eq(0)]
    assert out[["image", "reason", "copy_of"]].to_numpy().tolist() == [
        [0, "shared_split", 2],
        [1, "shared_split", 4],
        [3, "shared_split", 5],
    ]
    assert made.metrics["kept"] == 3


def test_without_given_splits_the_first_copy_stays_and_nothing_is_counted(run):
    made = run([0], [""] * 7)
    assert made.decisions["copy_of"].dropna().tolist() == [0]
    assert "shared_between_splits" not in made.metrics


def test_a_copy_without_a_split_leaves_before_one_with(run):
    assert run([0], ["", *SIX[1:], "test"]).decisions["copy_of"].dropna().to_dict() == {0: 6}
