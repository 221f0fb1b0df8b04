from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from leaf.clean import same_photo as crops
from leaf.clean.clean import clean
from leaf.params import Params
from tests.clean.lookalikes import jpeg


def textured(rng: np.random.Generator, count: int, size: int = 96) -> np.ndarray:
    """Return distinct images with less contrast at finer scales, like photos: uint8 (count, size, size, 3)."""
    layers = [
        np.stack([cv2.resize(rng.normal(0, 120 / n, (n, n, 3)), (size, size)) for _ in range(count)])
        for n in (2, 4, 8, 16, 24)
    ]
    return np.clip(sum(layers) + 128, 0, 255).astype(np.uint8)


def crop(
    image: np.ndarray,
    scale: float = 1.0,
    shift: tuple[float, float] = (0, 0),
    turn: float = 0,
    tint: float = 1.0,
    stretch: float = 1.0,
) -> np.ndarray:
    """Crop `image` to `scale` of its side, shifted and rotated, and resize the crop to the size of `image`.

    Before resizing, the crop's height is `stretch` times its width.
    """
    side = image.shape[0]
    warp = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn, scale)
    warp[:, 0] /= stretch
    warp[:, 2] += (side - 1) / 2 * (1 - 1 / stretch), 0
    warp[:, 2] += shift
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(image, warp, (side, side), flags=how, borderMode=cv2.BORDER_REFLECT)
    return np.clip(moved * np.array([1, tint, 1 / tint]), 0, 255).astype(np.uint8)


def planted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random crop of each image: scaled, shifted, rotated, tinted and saved as JPEG."""
    return np.stack(
        [
            jpeg(
                crop(x, rng.uniform(0.85, 1), tuple(rng.uniform(-8, 8, 2)), rng.uniform(-5, 5), rng.uniform(0.9, 1.1)),
                int(rng.integers(60, 96)),
            )
            for x in images
        ]
    )


def pairs(images: np.ndarray) -> set[tuple[int, int]]:
    found = crops.same_photo_pairs(images, np.arange(len(images)))
    return set(found[["image", "other"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("changed", "dtype"),
    [
        ({"scale": 0.85}, np.uint8),
        ({"shift": (8, -8)}, np.uint8),
        ({"turn": 5}, np.uint8),
        ({"tint": 1.1}, np.uint8),
        ({"stretch": 1.3}, np.uint8),
        ({"stretch": 1.2, "turn": 2, "shift": (3, 2)}, np.uint8),
        ({"scale": 0.92, "turn": -3}, np.float32),
    ],
)
def test_crops_are_found_and_match_after_alignment(changed: dict[str, Any], dtype: type) -> None:
    images = textured(np.random.default_rng(2), 12)
    images[7] = crop(images[4], **changed)
    found = crops.same_photo_pairs(images.astype(dtype), np.arange(12))
    assert found[["image", "other"]].to_numpy().tolist() == [[4, 7]]
    assert found["aligned_mse"][0] < 60


def test_shift_scale_and_rotation_are_reported() -> None:
    images = textured(np.random.default_rng(3), 4)
    images[3] = crop(images[0], 0.9, (4, -2), 3)
    found = crops.same_photo_pairs(images, np.arange(4))
    words = found["transform"][0].split()
    to_first = np.vstack([cv2.getRotationMatrix2D((47.5, 47.5), 3, 0.9), [0, 0, 1]])
    to_first[:2, 2] += (4, -2)
    shift = (np.linalg.inv(to_first) @ [47.5, 47.5, 1])[:2] - 47.5
    assert [float(words[k]) for k in (1, 2)] == pytest.approx(shift, abs=0.3)
    assert float(words[4]) == pytest.approx(1 / 0.9, abs=0.01)
    assert abs(float(words[6])) == pytest.approx(3, abs=0.3)


def test_different_images_are_not_paired() -> None:
    assert pairs(textured(np.random.default_rng(5), 30)) == set()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_or_uniform_images_are_not_paired(count: int) -> None:
    assert pairs(np.full((count, 32, 32, 3), 9, np.uint8)) == set()


def test_images_with_a_small_overlap_are_not_aligned() -> None:
    image = textured(np.random.default_rng(6), 1)[0]
    moved = np.roll(image, 60, axis=1)
    assert crops.align(image, moved) is None


def test_cells_find_most_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(7).normal(size=(1500, 6)).astype(np.float32)
    whole = set(map(tuple, np.concatenate(crops._likely(points)).tolist()))
    monkeypatch.setattr(crops, "_CELL", 64)
    parted = set(map(tuple, np.concatenate(crops._likely(points)).tolist()))
    assert len(whole & parted) > 0.9 * len(whole)
    assert len(parted) < 1.1 * len(whole)


def test_crops_share_a_group_and_are_kept(index: Callable[..., pd.DataFrame], no_overrides: pd.DataFrame) -> None:
    images = textured(np.random.default_rng(8), 12)
    images[9] = crop(images[1], 0.9, (3, 3))
    images[10] = images[9]
    cleaned = clean(images, index(images), "auto", no_overrides, Params())
    assert cleaned.decisions["group"][[1, 9, 10]].tolist() == [1, 1, 1]
    assert cleaned.metrics["kept"] == 11
    assert cleaned.pairs.query("kind == 'aligned'")[["image", "other"]].to_numpy().tolist() == [[1, 9]]
    without = clean(images, index(images), "auto", no_overrides, Params(same_photo=False))
    assert without.decisions["group"][9] == 9


def test_above_the_limit_the_search_is_skipped_and_reported(
    index: Callable[..., pd.DataFrame], no_overrides: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = textured(np.random.default_rng(8), 12, 48)
    images[9] = crop(images[1], 0.9, (3, 3))
    monkeypatch.setattr("leaf.clean.clean.MOST_IMAGES", 11)
    cleaned = clean(images, index(images), "auto", no_overrides, Params())
    assert cleaned.decisions["group"][9] == 9
    assert cleaned.warnings[0].startswith("same_photo: ")
    assert "12 images" in cleaned.warnings[0]
    assert cleaned.metrics["same_photo_not_sought"] == 12


@pytest.mark.realdata
@pytest.mark.slow
def test_artificial_crops_of_real_photos_are_found(shared: Path) -> None:
    rng = np.random.default_rng(9)
    with np.load(shared / "leaves_1041.npz", allow_pickle=False) as file:
        images = np.unique(file["data"][:500].astype(np.uint8), axis=0)
    stretched = [crop(x, rng.uniform(0.95, 1), stretch=rng.uniform(1.03, 1.25)) for x in images[150:250]]
    images = np.concatenate([images, planted(images[:150], rng), stretched])
    count = len(images) - 250
    found = pairs(images)
    assert len(found & {(i, count + i) for i in range(150)}) >= 0.9 * 150
    assert len(found & {(i, count + i) for i in range(150, 250)}) >= 0.9 * 100


def photographs(folder: Path) -> tuple[np.ndarray, pd.Series]:
    """Return the photos in a folder, resized to 96×96, and the leaf that each shows."""
    table = pd.read_csv(folder / "metadata.csv")
    read = (cv2.imread(str(folder / name)) for name in table["file"])
    return np.stack([cv2.resize(x, (96, 96), interpolation=cv2.INTER_AREA) for x in read]), table["group"]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", ["leaves_by_plant", "leaves_by_disease"])
def test_different_leaves_are_not_crops_of_one_photo(shared: Path, name: str) -> None:
    images, groups = photographs(shared / name)
    leaf = np.concatenate([groups, groups[:60]])
    found = pairs(np.concatenate([images, planted(images[:60], np.random.default_rng(10))]))
    assert len(found) >= 50  # most of the artificial crops
    assert all(leaf[i] == leaf[j] for i, j in found)


@pytest.mark.realdata
@pytest.mark.slow
def test_blurred_leaves_aligned_by_a_stretch_are_not_paired(shared: Path) -> None:
    images, leaf = photographs(shared / "leaves_by_plant")
    found = pairs(np.stack([cv2.GaussianBlur(x, (0, 0), 3) for x in images]))
    assert all(leaf[i] == leaf[j] for i, j in found)
