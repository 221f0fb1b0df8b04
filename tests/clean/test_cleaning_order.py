"""The result of `clean` does not depend on the order of the images."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaf.clean.clean import clean
from leaf.params import Params

GONE = {"outliers": "outlier", "duplicates": "duplicate", "near_duplicates": "near_duplicate"}


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31 - 1), copies=st.lists(st.integers(0, 7), min_size=4, max_size=16), data=st.data())
def test_groups_and_counts_do_not_depend_on_image_order(distinct_images, index, no_overrides, seed, copies, data):
    rng = np.random.default_rng(seed)
    distinct = distinct_images(rng, 8)
    images = distinct[copies].copy()
    for place in np.flatnonzero(rng.random(len(images)) < 0.3):  # near duplicates that differ by up to two gray levels
        images[place] = np.clip(images[place] + rng.integers(0, 3, images.shape[1:]), 0, 255)
    names = np.array([data.draw(st.sampled_from(["", "", "", "plant"])) for _ in copies], object)
    labels = np.array(copies) % 2
    order = np.array(data.draw(st.permutations(range(len(images)))))
    made = [
        clean(
            images[rows],
            index(images[rows], labels[rows], list(names[rows])),
            "auto",
            no_overrides,
            Params(),
        )
        for rows in (np.arange(len(images)), order)
    ]
    plain, moved = (each.decisions for each in made)
    for table, each in zip((plain, moved), made, strict=True):
        assert list(table["image"]) == list(range(len(images)))
        assert each.metrics["kept"] == table["kept"].sum()
        for key, reason in GONE.items():
            assert each.metrics[key] == (table["reason"] == reason).sum()
    assert made[0].metrics == made[1].metrics
    assert (_together(plain["group"])[np.ix_(order, order)] == _together(moved["group"])).all()


def _together(group: pd.Series) -> np.ndarray:
    values = group.to_numpy()
    return values[:, None] == values[None, :]
