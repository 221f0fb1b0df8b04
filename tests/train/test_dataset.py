"""Test the training data set and the batches of an epoch."""

from dataclasses import replace

import numpy as np
import pytest

from leaf.params import Augmentation, Params
from leaf.train.augmentation import make_augmenter
from leaf.train.dataset import (
    Batch,
    Dataset,
    batch_indices,
    batches,
    class_weights,
    steps_per_epoch,
)

BATCHES_OF_4 = Params(batch_size=4, seed=0)


def numbered(count: int, synthetic: int = 0) -> Dataset:
    """Return images that are each filled with their index; synthetic images start at 200 and have class 1."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))
    synthetic_images = np.broadcast_to(
        np.arange(200, 200 + synthetic, dtype=np.uint8)[:, None, None, None], (synthetic, 2, 2, 3)
    )
    labels = np.concatenate([np.arange(count) % 2, np.ones(synthetic, int)])
    return Dataset(images, np.arange(count + synthetic), labels, synthetic_images)


def test_an_epoch_contains_every_image_and_pads_the_last_batch() -> None:
    indices = batch_indices(10, 4, seed=1, epoch=1)
    assert indices.shape == (3, 4) == (steps_per_epoch(10, 4), 4)
    assert set(indices.ravel()) == set(range(10))


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    assert (batch_indices(50, 5, 1, 1) == batch_indices(50, 5, 1, 1)).all()
    assert (batch_indices(50, 5, 1, 1) != batch_indices(50, 5, 1, 2)).any()
    assert (batch_indices(50, 5, 1, 1) != batch_indices(50, 5, 2, 1)).any()


def test_real_and_synthetic_images_have_their_labels() -> None:
    dataset = numbered(6, synthetic=3)
    seen = {}
    for batch in batches(dataset, BATCHES_OF_4, epoch=1):
        assert batch.images.dtype == np.uint8
        seen |= dict(zip(batch.images[:, 0, 0, 0].astype(int), batch.labels.argmax(axis=1), strict=True))
    assert seen == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 200: 1, 201: 1, 202: 1}


def test_rows_select_images() -> None:
    dataset = Dataset(numbered(9).images, np.array([7, 3]), np.array([0, 1]))
    assert dataset.take(np.array([1, 0, 1]))[:, 0, 0, 0].tolist() == [3, 7, 3]


def test_class_weights_give_each_class_the_same_total() -> None:
    assert (class_weights(np.repeat([0, 1], [9, 3]), 2) * [9, 3]).tolist() == [6, 6]
    assert (class_weights(np.repeat([0, 1, 2], [9, 3, 6]), 3) * [9, 3, 6]).tolist() == [6, 6, 6]


def test_class_weights_become_sample_weights() -> None:
    dataset = replace(numbered(4), labels=np.array([0, 0, 0, 1]))
    (batch,) = batches(dataset, Params(batch_size=4, balance="class_weight"), 1)
    np.testing.assert_allclose(batch.weights, np.where(batch.labels[:, 0] == 1, 4 / 6, 2.0))


def test_masks_match_their_images():
    masks = np.eye(4, dtype=bool).reshape(4, 2, 2)
    (batch,) = batches(replace(numbered(4), masks=masks), BATCHES_OF_4, 1)
    assert (batch.masks == masks[batch.images[:, 0, 0, 0]]).all()


def test_the_augmenter_receives_epoch_and_step() -> None:
    calls = []

    def note(batch: Batch, epoch: int, step: int, positions: np.ndarray | None) -> Batch:
        assert positions is None
        calls.append((epoch, step))
        return batch

    list(batches(numbered(8), BATCHES_OF_4, 3, note))
    assert calls == [(3, 0), (3, 1)]


@pytest.mark.parametrize(("kinds", "given"), [("uB", "uint8"), ("fB", "float32"), ("uf", "float32")])
def test_batches_of_uint8_images_stay_uint8(kinds: str, given: str) -> None:
    images, synthetic_images = (np.zeros((2, 1, 1, 3), np.float32 if kind == "f" else np.uint8) for kind in kinds)
    dataset = Dataset(images, np.arange(4), np.zeros(4, int), synthetic_images)
    assert dataset.take(np.array([0, 3])).dtype == given


@pytest.mark.parametrize("count", [1, 3, 9])
def test_batches_are_in_order_with_any_number_of_threads(count: int) -> None:
    dataset = numbered(4 * count)
    read = [batch.images[:, 0, 0, 0].tolist() for batch in batches(dataset, BATCHES_OF_4, 1)]
    assert read == batch_indices(4 * count, 4, 0, 1).tolist()


def test_two_parts_of_a_batch_equal_the_full_batch() -> None:
    augmenter = make_augmenter(Augmentation(flip="both"), 0)
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 3, 3), np.uint8)
    dataset = Dataset(images, np.arange(12), np.zeros(12, int))
    shares = [np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7])]  # two micro-batches, each in two parts
    params = Params(batch_size=8)
    whole = next(batches(dataset, params, 1, augmenter))
    for share in shares:
        part = next(batches(dataset, params, 1, augmenter, share))
        np.testing.assert_array_equal(part.images, whole.images[share])
