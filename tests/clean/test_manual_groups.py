"""The overrides `group` and `apart` change groups and are listed in decisions.csv."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leaf.clean.clean import Cleaned, clean
from leaf.params import Params

Make = Callable[..., Any]


@pytest.fixture
def leaves(distinct_images: Make) -> np.ndarray:
    """Return six images, an exact copy of image 1, a near duplicate of image 0 and a shifted copy of image 2."""
    images = distinct_images(np.random.default_rng(5), 6, 48)
    near = np.clip(images[0].astype(int) + 3, 0, 255).astype(np.uint8)
    shifted = np.roll(images[2:3], (2, 3), axis=(1, 2))
    return np.concatenate([images, images[[1]], near[None], shifted])


@pytest.fixture
def rule(leaves: np.ndarray, index: Make) -> Callable[..., Cleaned]:
    """Return a function that cleans the leaves with overrides `(image, ruling, other image or group name)`."""

    def rule(*rows: tuple[int, str, int | str], group: list[str] | None = None) -> Cleaned:
        table = index(leaves, group=group)
        hashes = table["hash"]
        cells = [(hashes[i], said, "", "me", "", hashes[o] if isinstance(o, int) else o) for i, said, o in rows]
        overrides = pd.DataFrame(cells, columns=["hash", "ruling", "label", "who", "why", "other"], dtype=str)
        return clean(leaves, table, [], overrides, Params())

    return rule


def groups(cleaned: Cleaned) -> list[int]:
    return cleaned.decisions["group"].tolist()


def test_without_overrides_copies_and_crops_share_groups(rule: Make) -> None:
    cleaned = rule()
    assert groups(cleaned) == [0, 1, 2, 3, 4, 5, 1, 0, 2]
    assert set(cleaned.decisions["ruling"]) == {""}


def test_group_merges_two_groups_and_all_copies(rule: Make) -> None:
    assert groups(rule((6, "group", 7))) == [0, 0, 2, 3, 4, 5, 0, 0, 2]


def test_group_by_name_merges_the_images_with_the_specified_group(rule: Make) -> None:
    assert groups(rule((3, "group", "P"), (4, "group", "P")))[3:5] == [3, 3]
    given = ["", "", "", "", "", "P", "", "", ""]
    assert groups(rule((3, "group", "P"), (4, "group", "P"), group=given))[3:6] == [3, 3, 3]


def test_apart_separates_crops(rule: Make) -> None:
    cleaned = rule((2, "apart", 8))
    assert groups(cleaned) == [0, 1, 2, 3, 4, 5, 1, 0, 8]
    assert cleaned.pairs.query("kind == 'aligned'").empty
    assert not any("marked apart" in line for line in cleaned.warnings)


def test_near_duplicate_marked_apart_is_kept(rule: Make) -> None:
    assert rule().decisions["reason"][7] == "near_duplicate"
    cleaned = rule((7, "apart", 0))
    assert cleaned.decisions["kept"][7] == 1
    assert groups(cleaned)[7] == 7


def test_decisions_list_the_overrides_of_both_images_and_their_copies(rule: Make) -> None:
    ruling = rule((6, "group", 3), (2, "apart", 8), (4, "group", "P")).decisions["ruling"]
    assert ruling.tolist() == ["", "group 3", "apart 8", "group 1", "group P", "", "group 3", "", "apart 2"]


def test_apart_images_connected_by_other_pairs_are_reported(rule: Make) -> None:
    cleaned = rule((2, "apart", 8), (2, "group", 5), (5, "group", 8))
    assert groups(cleaned)[2] == groups(cleaned)[8]
    assert [line for line in cleaned.warnings if "images 2 and 8" in line and "apart" in line]
