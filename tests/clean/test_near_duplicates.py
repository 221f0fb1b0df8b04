import itertools
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.clean import distances, near_duplicates
from leaf.errors import LeafError


def join(images: np.ndarray, threshold: float, turns: bool = False) -> pd.DataFrame:
    numbers = np.arange(len(images))
    return near_duplicates.near_pairs(images, numbers, distances.block_means(images, numbers), threshold, turns)


def rows(pairs: pd.DataFrame) -> list[tuple[int, int]]:
    return list(pairs[["image", "other"]].itertuples(index=False, name=None))


def brute_force(images: np.ndarray, threshold: float, symmetries: tuple[str, ...]) -> set[tuple[int, int]]:
    """Return all pairs that meet the three conditions of near duplicates."""
    plain, size = images.astype(np.float64), images.shape[1]
    numbers = np.arange(len(images))
    fine = distances.fine_means(images, numbers)
    coarse = distances.block_means(images, numbers) * np.sqrt(np.prod(distances.block_means(images, numbers[:1]).shape))
    coarse = coarse - coarse.mean(axis=(1, 2), keepdims=True)
    structure = near_duplicates.structure(coarse / np.sqrt(coarse[0].size)) + near_duplicates.FLAT
    limits = threshold * near_duplicates.SHARE * distances.tolerance(size) * structure
    found = set()
    for i, j in itertools.combinations(numbers.tolist(), 2):
        for symmetry in symmetries:
            turned, turned_coarse, turned_fine = (
                near_duplicates.transformed(each[i], symmetry) for each in (plain, coarse, fine)
            )
            mse = ((turned - plain[j]) ** 2).mean()
            if (
                mse < threshold
                and ((turned_coarse - coarse[j]) ** 2).mean() <= (limits[i] + limits[j]) / 2
                and not distances.differ_locally(turned_fine[None], fine[j][None], mse, distances.tolerance(size))[0]
            ):
                found.add((i, j))
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([5, 16, 19, 48]),
    threshold=st.sampled_from([1, 60, 150, 900]),
    dtype=st.sampled_from([np.uint8, np.float32]),
    turns=st.booleans(),
    blocks=st.sampled_from([(256, 2048), (3, 4), (7, 2)]),
)
@settings(max_examples=12, deadline=None)
def test_near_pairs_match_a_brute_force_search(
    seed: int, size: int, threshold: float, dtype: type, turns: bool, blocks: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 4, 4, 3)) * rng.uniform(0.02, 1, (12, 1, 1, 1))
    images = np.stack([cv2.resize(each, (size, size), interpolation=cv2.INTER_NEAREST) for each in coarse])
    turned = np.stack(
        [
            near_duplicates.transformed(images[rng.integers(12)], str(rng.choice(near_duplicates.SYMMETRIES[:3])))
            for _ in range(12)
        ]
    )
    turned += rng.normal(0, rng.uniform(0, np.sqrt(threshold), (12, 1, 1, 1)), turned.shape)
    turned[::2, : size // 3, : size // 3] += rng.uniform(0, 20, (6, 1, 1, 1))
    images = np.clip(np.concatenate([images, turned]), 0, 255).astype(dtype)
    with patch.multiple(near_duplicates, _ROWS=blocks[0], _COLUMNS=blocks[1]):
        found = join(images, threshold, turns)
    names = near_duplicates.SYMMETRIES if turns else near_duplicates.SYMMETRIES[:1]
    assert rows(found) == sorted(brute_force(images, threshold, names))


def test_pair_at_the_threshold_is_not_near() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[1] = 10
    assert rows(join(images, 100)) == []
    assert join(images, 100.001)["mse"].tolist() == [100]


def test_pairs_that_differ_only_in_the_leading_component_are_found() -> None:
    greys = np.random.default_rng(0).permutation(np.arange(0, 252, 12))
    images = np.zeros((len(greys), 16, 16, 3), np.uint8) + greys[:, None, None, None].astype(np.uint8)
    with patch.multiple(near_duplicates, _ROWS=4, _COLUMNS=4):
        found = join(images, 12**2 + 0.1)
    assert sorted(abs(greys[found["image"]] - greys[found["other"]])) == [12] * (len(greys) - 1)


def test_threshold_of_0_finds_no_pairs() -> None:
    assert rows(join(np.zeros((3, 16, 16, 3), np.uint8), 0)) == []


@pytest.mark.parametrize("symmetry", near_duplicates.SYMMETRIES[1:])
def test_transformed_copy_is_found_with_its_symmetry(symmetry: str, distinct_images: Callable[..., np.ndarray]) -> None:
    images = distinct_images(np.random.default_rng(5), 6)
    turned = np.ascontiguousarray(near_duplicates.transformed(images[2], symmetry))
    images = np.concatenate([images, turned[None]])
    found = join(images, 150, turns=True)
    assert (rows(found), found["transform"].tolist()) == ([(2, 6)], [symmetry])
    assert rows(join(images, 150)) == []


def test_too_many_near_pairs_are_rejected_before_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST_PAIRS", 1000)
    images = np.random.default_rng(0).integers(100, 104, (100, 16, 16, 3)).astype(np.uint8)
    with pytest.raises(LeafError, match="near_mse: about 4,950 pairs"):
        join(images, 150)


@pytest.mark.realdata
def test_jpeg_copies_at_quality_75_are_found_and_different_photos_are_not(shared: Path) -> None:
    with np.load(f"{shared}/leaves_1041.npz", allow_pickle=False) as file:
        images = np.unique(file["data"][:400].astype(np.uint8), axis=0)
    saved = np.stack([cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], 1) for x in images])
    found = join(np.concatenate([images, saved]), 150)
    distance = ((images.astype(float) - saved) ** 2).mean(axis=(1, 2, 3))
    expected = {(i, i + len(images)) for i in np.flatnonzero(distance < 150)}
    assert set(rows(found)) == expected
    assert len(expected) > 0.97 * len(images)


@pytest.mark.parametrize("size", [24, 25, 31])
@pytest.mark.parametrize("symmetry", near_duplicates.SYMMETRIES)
def test_block_means_of_a_transformed_image_are_transformed_block_means(size: int, symmetry: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    turned = np.ascontiguousarray(near_duplicates.transformed(image, symmetry))
    one, other = (distances.block_means(each, np.arange(1)) for each in (image, turned))
    np.testing.assert_allclose(near_duplicates.transformed(one, symmetry), other, atol=1e-3)


def test_the_eight_symmetries_are_distinct() -> None:
    image = np.arange(12).reshape(2, 2, 3)
    assert len({near_duplicates.transformed(image, name).tobytes() for name in near_duplicates.SYMMETRIES}) == 8
