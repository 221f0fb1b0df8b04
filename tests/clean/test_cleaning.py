from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.clean.clean import Cleaned, clean
from leaf.errors import LeafError
from leaf.params import Params

Make = Callable[..., Any]


@pytest.fixture
def leaves(distinct_images: Make) -> np.ndarray:
    """Return 12 distinct images, 9 more copies of the third and another copy of the first."""
    images = distinct_images(np.random.default_rng(7), 12)
    return np.concatenate([images, images[[2] * 9 + [0]]])


@pytest.fixture
def run(index: Make, no_overrides: pd.DataFrame) -> Callable[..., Cleaned]:
    """Return a function that cleans images with `same_photo=False` and default parameters, unless overridden."""

    def run(
        images: np.ndarray,
        references: Any = "auto",
        labels: Any = None,
        group: Any = None,
        classes: Any = ("healthy", "unhealthy"),
        **named: Any,
    ) -> Cleaned:
        return clean(
            images,
            index(images, labels, group),
            references,
            no_overrides,
            Params(same_photo=False, **named),
            classes,
        )

    return run


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_frequent_image_and_its_copies_are_removed(dtype: type, leaves: np.ndarray, run: Make) -> None:
    cleaned = run(leaves.astype(dtype))
    out = cleaned.decisions.query("reason == 'outlier'")
    assert out["image"].tolist() == [2, *range(12, 21)]
    assert set(out["reference"]) == {"2"}
    assert (out["distance"] == 0).all()
    assert cleaned.metrics["outliers"] == 10
    assert cleaned.metrics["duplicates"] == 1


def test_jpeg_copies_of_an_outlier_are_outliers(leaves: np.ndarray, run: Make) -> None:
    for place in range(14, 21):
        how = [cv2.IMWRITE_JPEG_QUALITY, 96 - place, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
        encoded = cv2.imencode(".jpg", leaves[place], how)[1]
        leaves[place] = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert run(leaves).decisions.query("reason == 'outlier'")["image"].tolist() == [2, *range(12, 21)]


def test_reference_without_copies_causes_a_warning(leaves: np.ndarray, run: Make) -> None:
    cleaned = run(leaves, [13, 5])
    assert cleaned.metrics["outliers"] == 10
    assert [line for line in cleaned.warnings if line.startswith("references: ")] == cleaned.warnings[:1]
    assert "references: 5: no clear jump" in cleaned.warnings[0]


def test_copies_of_an_external_reference_are_found(leaves: np.ndarray, run: Make) -> None:
    cleaned = run(leaves, [("cartoon.png", leaves[2].copy())])
    assert set(cleaned.decisions.query("reason == 'outlier'")["reference"]) == {"cartoon.png"}
    assert cleaned.metrics["outliers"] == 10


def test_outlier_of_two_references_is_assigned_to_the_nearer_one(leaves: np.ndarray, run: Make) -> None:
    references = [("other.png", leaves[2] // 2 + 60), ("near.png", leaves[2].copy()), ("same.png", leaves[2].copy())]
    found = run(leaves, references, outlier_cut=65025.0).decisions.query("distance == 0")
    assert found["image"].tolist() == [2, *range(12, 21)]
    assert set(found["reference"]) == {"near.png"}


def test_without_references_no_image_is_an_outlier(leaves: np.ndarray, run: Make) -> None:
    assert run(leaves, []).metrics["outliers"] == 0


def test_reference_number_out_of_range_is_rejected(leaves: np.ndarray, run: Make) -> None:
    with pytest.raises(LeafError, match=r"references: .*22.*valid: 0 to 21"):
        run(leaves, [22])


def test_ranking_contains_every_image_by_distance(leaves: np.ndarray, run: Make) -> None:
    ranking = run(leaves).distances
    assert sorted(ranking["image"]) == list(range(22))
    assert ranking["distance"].is_monotonic_increasing
    assert ranking["outlier"].tolist() == [1] * 10 + [0] * 12


def test_copies_and_specified_groups_are_merged(leaves: np.ndarray, run: Make) -> None:
    names = [""] * 22
    names[0] = names[7] = "plant 3"
    group = run(leaves, group=names).decisions["group"]
    assert group[0] == group[7] == group[21] == 0
    assert group[8] == 8


def test_images_of_a_specified_group_are_not_copies(leaves: np.ndarray, run: Make) -> None:
    assert run(leaves, group=["one"] * 22).metrics["kept"] == 11


def test_near_duplicate_is_removed_and_its_pair_is_listed(leaves: np.ndarray, run: Make) -> None:
    leaves[5] = np.clip(leaves[4].astype(int) + 3, 0, 255)
    cleaned = run(leaves)
    assert cleaned.metrics["near_duplicates"] == 1
    row = cleaned.decisions.loc[5]
    assert (row["reason"], row["copy_of"]) == ("near_duplicate", 4)
    pair = cleaned.pairs.query("kind == 'near'").iloc[0]
    assert (pair["image"], pair["other"]) == (4, 5)
    assert pair["mse"] == ((leaves[4].astype(float) - leaves[5]) ** 2).mean()


def test_rotated_copy_is_removed_only_with_near_turns(leaves: np.ndarray, run: Make) -> None:
    leaves[5] = np.rot90(leaves[4])
    assert run(leaves).metrics["near_duplicates"] == 0
    cleaned = run(leaves, near_turns=True)
    assert cleaned.metrics["near_duplicates"] == 1
    assert cleaned.pairs.query("kind == 'turned'")["transform"].tolist() == ["turn_90"]


def test_conflict_is_counted_and_reported(leaves: np.ndarray, run: Make) -> None:
    labels = np.zeros(22, int)
    labels[21] = 1
    cleaned = run(leaves, labels=labels)
    assert cleaned.metrics["conflicts"] == 1
    assert any(line.startswith("conflicts: 1 set of copies") for line in cleaned.warnings)


def test_counts_are_listed_by_class_name(leaves: np.ndarray, run: Make) -> None:
    metrics = run(leaves, labels=np.arange(22) % 2, classes=("good", "bad")).metrics
    assert sum(metrics["kept_classes"].values()) == metrics["kept"] == 11
    assert sum(metrics["after_outliers_classes"].values()) == metrics["after_outliers"] == 12


def test_oversampled_class_keeps_one_copy_of_each_image_and_is_reported(distinct_images: Make, run: Make) -> None:
    images = distinct_images(np.random.default_rng(3), 90)
    copied = np.concatenate([images[:50], np.repeat(images[50:], 10, axis=0)])
    labels = (np.arange(len(copied)) >= 50).astype(int)
    cleaned = run(copied, labels=labels, classes=["common", "rare"])
    assert cleaned.metrics["outliers"] == 0
    assert cleaned.metrics["kept_classes"] == {"common": 50, "rare": 40}
    assert any(
        line.startswith("references: images of class rare that appear 8 times or more: 40") for line in cleaned.warnings
    )
    lost = "class rare: 360 of 400 images (90.0%) removed (reason: duplicate)"
    assert any(lost in line for line in cleaned.warnings)


@pytest.mark.parametrize(("copies", "share"), [(5, ""), (6, "6 of 100 images (6.0%)")])
def test_removal_of_more_than_5_percent_of_a_class_is_reported(
    distinct_images: Make, run: Make, copies: int, share: str
) -> None:
    distinct = distinct_images(np.random.default_rng(3), 200 - copies)
    images = np.concatenate([distinct, distinct[-copies:]])
    lines = [line for line in run(images, labels=np.arange(200) // 100).warnings if line.startswith("class ")]
    assert [line.partition(" removed")[0] for line in lines] == ([f"class unhealthy: {share}"] if share else [])


@pytest.mark.parametrize(("labels", "kept"), [([0, 2, 2], 2), ([0, 1, 2], None), ([2, 2, 0], 2)])
def test_majority_label_of_copies_is_used_with_three_classes(
    distinct_images: Make, run: Make, labels: list[int], kept: int | None
) -> None:
    images = distinct_images(np.random.default_rng(5), 1)[[0, 0, 0]]
    cleaned = run(images, labels=np.array(labels), classes=["a", "b", "c"], conflicts="majority")
    assert cleaned.decisions.query("kept == 1")["label"].tolist() == ([] if kept is None else [kept])


def test_single_image_is_kept(leaves: np.ndarray, run: Make) -> None:
    assert run(leaves[:1]).metrics["kept"] == 1


@given(seed=st.integers(0, 2**32 - 1), duplicates=st.sampled_from(["remove", "keep"]))
@pytest.mark.slow
@settings(max_examples=15, deadline=None)
def test_counts_and_groups_do_not_depend_on_row_order(
    seed: int, duplicates: Any, distinct_images: Make, index: Make, no_overrides: pd.DataFrame
) -> None:
    rng = np.random.default_rng(seed)
    images = distinct_images(rng, 10, 16)
    images = np.concatenate([images, images[rng.integers(0, 4, 14)]])
    images = np.clip(images + rng.integers(0, 3, (24, 1, 1, 1)) * 4, 0, 255).astype(np.uint8)
    order = rng.permutation(24)
    chosen = Params(outlier_copies=5, duplicates=duplicates, same_photo=False)
    plain = clean(images, index(images), "auto", no_overrides, chosen)
    moved = clean(images[order], index(images[order]), "auto", no_overrides, chosen)
    assert plain.metrics == moved.metrics
    same = plain.decisions["group"].to_numpy()[order]
    other = moved.decisions["group"].to_numpy()
    np.testing.assert_array_equal(same[:, None] == same, other[:, None] == other)


@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.slow
@settings(max_examples=15, deadline=None)
def test_every_image_has_one_row_and_counts_add_up(
    seed: int, distinct_images: Make, index: Make, no_overrides: pd.DataFrame
) -> None:
    rng = np.random.default_rng(seed)
    images = distinct_images(rng, 6, 16)[rng.integers(0, 6, 20)]
    images = np.clip(images + rng.integers(0, 9, (20, 1, 1, 1)), 0, 255).astype(np.uint8)
    labels = rng.integers(0, 2, 20)
    chosen = Params(outlier_copies=4, conflicts="drop", same_photo=False)
    cleaned = clean(images, index(images, labels), "auto", no_overrides, chosen)
    counts = cleaned.metrics
    dropped = (cleaned.decisions["reason"] == "conflict").sum()
    assert cleaned.decisions["image"].tolist() == list(range(20))
    assert counts["outliers"] + counts["duplicates"] + counts["near_duplicates"] + dropped + counts["kept"] == 20


def test_different_images_with_the_same_hash_are_not_copies(index: Make, no_overrides: pd.DataFrame) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images[4] = images[0]
    table = index(images)
    table["hash"] = "one for all"
    cleaned = clean(images, table, "auto", no_overrides, Params(same_photo=False))
    assert cleaned.decisions["reason"].tolist() == ["", "", "", "", "duplicate"]
