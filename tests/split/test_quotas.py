"""The arithmetic of sizes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.split.stratified_split import apportion, groups_by_size, images_asked


@pytest.mark.parametrize(("size", "images", "number"), [(500, 5004, 500), (0.15, 100, 15), (0.5, 5, 3), (0, 9, 0)])
def test_a_size_is_a_count_or_a_fraction_rounded_half_up(size, images, number):
    assert images_asked(size, images) == number


def test_class_quotas_are_the_shares_rounded_and_add_up():
    assert apportion(500, np.array([3101, 1903])).tolist() == [310, 190]


def test_a_rare_class_gets_at_least_one():
    assert apportion(5, np.array([990, 10])).tolist() == [4, 1]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 40))
def test_the_sum_is_as_near_to_the_target_as_any_choice_of_groups(available, target):
    chosen = groups_by_size(available, target)
    choices = itertools.product(*(range(number + 1) for number in available.values()))
    nearest = min(abs(sum(s * n for s, n in zip(available, choice, strict=True)) - target) for choice in choices)
    assert all(0 <= chosen[size] <= number for size, number in available.items())
    assert abs(sum(size * number for size, number in chosen.items()) - target) == nearest


def test_every_size_is_taken_in_proportion():
    assert groups_by_size({1: 100, 2: 100, 4: 100}, 70) == {1: 10, 2: 10, 4: 10}
