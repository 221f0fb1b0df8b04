"""The data set, and the batches of an epoch."""

import numpy as np

from leaf.training.dataset import Batch, Dataset, batch_indices, batches, class_weights, steps_per_epoch


def numbered(count: int, synthetic: int = 0) -> Dataset:
    """Images whose every value is their number; synthetic ones count on from 200."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))
    made = np.broadcast_to(np.arange(200, 200 + synthetic, dtype=np.uint8)[:, None, None, None], (synthetic, 2, 2, 3))
    return Dataset(images, np.arange(count), np.arange(count) % 2, made, np.ones(synthetic, int))


def test_an_epoch_holds_every_image_and_fills_the_last_batch() -> None:
    indices = batch_indices(10, 4, seed=1, epoch=1)
    assert indices.shape == (3, 4) == (steps_per_epoch(10, 4), 4)
    assert set(indices.ravel()) == set(range(10))


def test_each_epoch_has_its_own_order_and_the_same_one_again() -> None:
    assert (batch_indices(50, 5, 1, 1) == batch_indices(50, 5, 1, 1)).all()
    assert (batch_indices(50, 5, 1, 1) != batch_indices(50, 5, 1, 2)).any()
    assert (batch_indices(50, 5, 1, 1) != batch_indices(50, 5, 2, 1)).any()


def test_real_and_synthetic_images_come_with_their_labels() -> None:
    dataset = numbered(6, synthetic=3)
    seen = {}
    for batch in batches(dataset, 4, seed=0, epoch=1):
        assert batch.images.dtype == np.float32
        seen |= dict(zip(batch.images[:, 0, 0, 0].astype(int), batch.labels.argmax(axis=1), strict=True))
    assert seen == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 200: 1, 201: 1, 202: 1}


def test_rows_choose_among_the_images() -> None:
    dataset = Dataset(numbered(9).images, np.array([7, 3]), np.array([0, 1]))
    assert dataset.take(np.array([1, 0, 1]))[:, 0, 0, 0].tolist() == [3, 7, 3]


def test_class_weights_give_every_class_an_equal_say() -> None:
    assert (class_weights(np.repeat([0, 1], [9, 3]), 2) * [9, 3]).tolist() == [6, 6]
    assert (class_weights(np.repeat([0, 1, 2], [9, 3, 6]), 3) * [9, 3, 6]).tolist() == [6, 6, 6]


def test_weights_reach_the_batch() -> None:
    (batch,) = batches(numbered(4), 4, 0, 1, weights=np.array([2.0, 0.5]))
    assert (batch.weights == np.where(batch.labels[:, 0] == 1, 2.0, 0.5)).all()


def test_augmentation_is_told_epoch_and_step() -> None:
    told = []

    def note(batch: Batch, epoch: int, step: int) -> Batch:
        told.append((epoch, step))
        return batch

    list(batches(numbered(8), 4, 0, 3, augmenter=note))
    assert told == [(3, 0), (3, 1)]
