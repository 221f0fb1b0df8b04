from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leaf.clean import outliers

NO_PAIRS = np.empty((0, 2), np.int64)


def found(ranking: pd.DataFrame) -> list[int]:
    """Return the images before the cut."""
    return ranking.loc[ranking["outlier"] == 1, "image"].tolist()


def test_ranking_is_cut_after_exact_copies() -> None:
    distances = np.concatenate([np.zeros(98), np.linspace(2500, 9000, 500)])
    assert outliers.jump(distances) == 98


def test_ranking_is_cut_after_jpeg_copies() -> None:
    distances = np.concatenate([np.zeros(5), [12, 40, 78, 121, 180], np.linspace(2500, 9000, 500)])
    assert outliers.jump(distances) == 10


def test_gradual_ranking_has_no_jump() -> None:
    assert outliers.jump(np.linspace(390, 9000, 500)) == 0


def test_gap_between_distant_images_is_not_a_jump() -> None:
    assert outliers.jump(np.concatenate([np.linspace(600, 2000, 300), np.linspace(15000, 20000, 200)])) == 0


def test_ranking_of_copies_only_has_no_jump() -> None:
    assert outliers.jump(np.zeros(20)) == 0


def test_reference_without_copies_is_not_an_outlier() -> None:
    distances = np.concatenate([[0], np.linspace(390, 9000, 500)])
    assert found(outliers.rank("0", distances, "jump", own=0)) == []
    assert found(outliers.rank("a.png", distances, "jump")) == [0]


def test_reference_is_removed_with_its_copies() -> None:
    distances = np.array([0, 3000, 0, 5000, 4000, 60.0])
    ranking = outliers.rank("2", distances, "jump", own=2)
    assert found(ranking) == [0, 2, 5]


def test_ranking_is_cut_after_the_last_image_at_the_cut_distance() -> None:
    ranking = outliers.rank("a.png", np.array([7, 3, 5, 5, 9.0]), 5)
    assert found(ranking) == [1, 2, 3]


def proposed(first: np.ndarray, near: np.ndarray, copies: int) -> list[int]:
    """Return the proposed outliers after adding ten times as many distinct images to the class."""
    everything = np.concatenate([first, np.arange(len(first), 11 * len(first))])
    return outliers.frequent(everything, near, np.zeros(len(everything), np.int64), copies)[0]


def test_auto_counts_near_duplicates() -> None:
    first = np.array([0, 1, 0, 0, 4, 5])
    assert proposed(first, NO_PAIRS, 3) == [0]
    assert proposed(first, NO_PAIRS, 4) == []
    assert proposed(first, np.array([[0, 4]]), 4) == [0]


def test_auto_does_not_count_chains_of_near_images() -> None:
    chain = np.array([[i, i + 1] for i in range(9)])
    assert proposed(np.arange(10), chain, 4) == []


def test_auto_does_not_propose_near_duplicates_of_a_proposed_image() -> None:
    first = np.array([0, 0, 0, 3, 3, 5])
    assert proposed(first, np.array([[0, 3]]), 2) == [0]


def test_auto_proposes_a_limited_number_of_images() -> None:
    first = np.concatenate([np.arange(400) // 2 * 2, np.arange(400, 2000)])
    labels = np.arange(2000) // 4 % 100  # each class has two images with a copy and sixteen without
    proposed, copied = outliers.frequent(first, NO_PAIRS, labels, 2)
    assert len(proposed) == outliers.MOST_PROPOSED
    assert copied == []


def test_auto_proposes_only_images_more_frequent_than_an_oversampled_class() -> None:
    rare = np.repeat(np.arange(0, 400, 10), 10)  # 40 images, ten times each
    first = np.concatenate([rare, np.full(30, 400), np.arange(430, 1000)])
    labels = np.where(np.arange(1000) < 430, 1, 0)
    proposed, copied = outliers.frequent(first, NO_PAIRS, labels, 8)
    assert proposed == [400]
    assert copied == list(range(0, 400, 10))


def test_auto_does_not_remove_most_images_of_a_small_class() -> None:
    first = np.concatenate([np.repeat([0, 10], 10), np.arange(20, 100)])
    proposed, copied = outliers.frequent(first, NO_PAIRS, (np.arange(100) >= 21).astype(int), 8)
    assert (proposed, copied) == ([], [0, 10])


@pytest.mark.realdata
def test_rankings_of_ordinary_photos_have_no_clear_jump(shared: Path) -> None:
    with np.load(f"{shared}/leaves_1041.npz", allow_pickle=False) as file:
        images = np.unique(file["data"][:300, ::4, ::4].reshape(300, -1), axis=0).astype(np.float64)
    for image in range(0, len(images), 3):
        distances = ((images - images[image]) ** 2).mean(axis=1)
        assert found(outliers.rank(str(image), distances, "jump", own=image)) == []
