"""Test the augmentation of training images."""

from typing import Any

import numpy as np
import pytest

from leaf.params import Augmentation
from leaf.train.augmentation import make_augmenter, swap_backgrounds, without_leaf
from leaf.train.dataset import Batch


def only(**values: Any) -> Augmentation:
    """Return an augmentation with only `values` turned on."""
    return Augmentation(**{"flip": "none", **values})


def batch(weights: tuple[float, float] = (1.0, 1.0)) -> Batch:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 16, 16, 3)).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
    masks = np.zeros((8, 16, 16), bool)
    masks[:, 4:12, 4:12] = True
    return Batch(images, labels, labels @ np.array(weights, np.float32), masks)


def changed(augmentation: Augmentation, epoch: int = 1, step: int = 0, seed: int = 0) -> Batch:
    augmenter = make_augmenter(augmentation, seed)
    assert augmenter
    return augmenter(batch(), epoch, step)


def test_augmenter_is_none_without_augmentation() -> None:
    assert make_augmenter(only(), 0) is None


EACH = [
    only(flip="horizontal"),
    only(flip="vertical"),
    only(flip="both"),
    only(background="swap"),
    only(rotation=30),
    only(zoom=0.3),
    only(translation=0.2),
    only(contrast=0.5),
    only(rand_augment=0.5),
    only(mixup=0.4),
    only(cutmix=1.0),
]


@pytest.mark.parametrize("changes", EACH, ids=str)
def test_each_augmentation_depends_only_on_seed_epoch_and_step(changes: Augmentation) -> None:
    first, again = changed(changes), changed(changes)
    assert all((a == b).all() for a, b in zip(first[:3], again[:3], strict=True))
    others = [changed(changes, epoch=2).images, changed(changes, step=1).images, changed(changes, seed=1).images]
    assert any((first.images != other).any() for other in others)
    assert any((image != batch().images).any() for image in [first.images, *others])


@pytest.mark.parametrize("changes", EACH, ids=str)
def test_each_augmentation_keeps_shape_type_and_range(changes: Augmentation) -> None:
    images = changed(changes).images
    assert images.shape == (8, 16, 16, 3)
    assert images.dtype == np.float32
    assert images.min() >= -0.01
    assert images.max() <= 255.01


def test_a_flip_only_moves_pixels() -> None:
    images = changed(only(flip="both")).images
    assert (np.sort(images, axis=None) == np.sort(batch().images, axis=None)).all()


def test_swapping_backgrounds_keeps_the_leaf():
    masks = np.zeros((40, 16, 16), bool)
    masks[:, 5:11, 5:11] = True
    masks[0], masks[1] = False, True  # the first image has no mask, and the second has no background
    images = np.repeat(np.arange(40), 16 * 16 * 3).reshape(40, 16, 16, 3).astype(np.uint8) * 3
    images[masks] = 250
    swapped = swap_backgrounds(images, masks, np.random.default_rng(0))
    assert (swapped[masks] == 250).all()
    assert (swapped[:2] == images[:2]).all()
    changed = (swapped != images).any(axis=(1, 2, 3))
    assert 10 < changed.sum() < 28
    for image in swapped[2:]:
        assert np.ptp(image[image < 250]) <= 4  # the background comes from one image, with its leaf inpainted
        assert image[0, 0, 0] in set(images[2:, 0, 0, 0].tolist())


def test_inpainting_removes_the_leaf():
    image = np.full((32, 32, 3), 90, np.uint8)
    mask = np.hypot(*(np.mgrid[:32, :32] - 16)) < 8
    image[np.hypot(*(np.mgrid[:32, :32] - 16)) < 9] = (20, 200, 20)  # the leaf is slightly larger than the mask
    assert np.abs(without_leaf(image, mask).astype(int) - 90).max() <= 4


def test_mixed_labels_sum_to_one_and_weights_are_mixed() -> None:
    augmenter = make_augmenter(only(mixup=0.5), 0)
    assert augmenter
    mixed = augmenter(batch((3.0, 1.0)), 1, 0)
    np.testing.assert_allclose(mixed.labels.sum(axis=1), 1, rtol=1e-6)
    assert ((mixed.labels > 0.01).all(axis=1)).any()
    assert (mixed.weights >= 0.999).all()
    assert (mixed.weights <= 3.001).all()
