"""Images shared between given splits: test takes precedence over validation, and validation over train."""

import numpy as np
import pytest

from leaf.clean.clean import clean
from leaf.params import Params


@pytest.fixture
def run(distinct_images, index, no_overrides):
    """Return a function that cleans six images and copies of some of them."""

    def run(copies, splits, group=None, overrides=None):
        images = distinct_images(np.random.default_rng(3), 6)[[0, 1, 2, 3, 4, 5, *copies]]
        table = index(images, np.arange(len(images)) % 2 * 0, group).assign(split=splits)
        settings = Params(same_photo=False)
        return clean(images, table, [], no_overrides if overrides is None else overrides(table), settings)

    return run


SIX = ["train", "train", "validation", "validation", "test", "test"]


def test_copy_in_test_takes_precedence_over_validation_and_train(run):
    made = run([0, 2, 0, 1], [*SIX, "test", "train", "validation", "train"])
    out = made.decisions[made.decisions["kept"].eq(0)]
    assert out[["image", "reason", "copy_of"]].to_numpy().tolist() == [
        [0, "duplicate", 6],
        [7, "duplicate", 2],
        [8, "duplicate", 6],
        [9, "duplicate", 1],
    ]
    assert made.metrics["shared_between_splits"] == 3  # the copy within train is not counted


def test_each_pair_is_reported_with_its_splits(run):
    line = run([0], [*SIX, "test"]).warnings[0]
    assert line.startswith("split: ")
    assert line.endswith("Removed: 0 (train) because of 6 (test)")


def test_images_of_a_plant_are_kept_only_in_the_highest_ranked_split(run):
    made = run([], SIX, group=["a", "b", "a", "c", "b", "c"])
    out = made.decisions[made.decisions["kept"].eq(0)]
    assert out[["image", "reason", "copy_of"]].to_numpy().tolist() == [
        [0, "shared_split", 2],
        [1, "shared_split", 4],
        [3, "shared_split", 5],
    ]
    assert made.metrics["kept"] == 3


def test_first_copy_is_kept_without_given_splits(run):
    made = run([0], [""] * 7)
    assert made.decisions["copy_of"].dropna().tolist() == [0]
    assert "shared_between_splits" not in made.metrics


def test_copy_with_a_given_split_takes_precedence(run):
    assert run([0], ["", *SIX[1:], "test"]).decisions["copy_of"].dropna().to_dict() == {0: 6}
