"""Test the sizes of splits, quotas of classes, and the choice of groups whose sizes sum to a target."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.split.stratified_split import apportion, images_asked, nearest_sum


@pytest.mark.parametrize(("size", "images", "number"), [(500, 5004, 500), (0.15, 100, 15), (0.5, 5, 3), (0, 9, 0)])
def test_size_is_a_count_or_a_fraction_rounded_half_up(size, images, number):
    assert images_asked(size, images) == number


def test_class_quotas_are_rounded_and_add_up_to_the_total():
    assert apportion(500, np.array([3101, 1903])).tolist() == [310, 190]


def test_rare_class_gets_at_least_one_image():
    assert apportion(5, np.array([990, 10])).tolist() == [4, 1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=9), st.integers(0, 40))
def test_no_other_choice_of_groups_is_closer_to_the_target(sizes, target):
    chosen = nearest_sum(sizes, target)
    choices = itertools.chain.from_iterable(itertools.combinations(sizes, n) for n in range(len(sizes) + 1))
    assert len(set(chosen)) == len(chosen)
    assert abs(sum(sizes[position] for position in chosen) - target) == min(abs(sum(c) - target) for c in choices)


def test_search_among_a_million_groups_of_equal_size_is_fast():
    assert nearest_sum([6] * 1_000_000, 9) == [0]


def test_early_groups_are_preferred():
    assert nearest_sum([4, 1, 2, 1, 1, 3], 6) == [0, 2]
