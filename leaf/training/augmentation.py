"""Random changes of the training images, the same for the same seed, epoch and step."""

from typing import Any

import keras
import numpy as np
from keras import layers

from leaf.training.dataset import Augment, Batch
from leaf.training.distribution import undistributed
from leaf.training.recipe import Changes

_FLIPPED = {"none": (), "horizontal": (2,), "vertical": (1,), "both": (2, 1)}  # axes of (N, H, W, 3)


def augment(changes: Changes, seed: int) -> Augment | None:
    """The function that changes a batch, or None where nothing is to change.

    The images change in the order flip, rotation, zoom, translation, contrast, RandAugment, then MixUp and CutMix,
    which mix the labels (and weights) with the images. Keras's RandAugment draws its two operations once a batch, their
    strength for each image.
    """
    with undistributed():
        axes, alone, mixing = _FLIPPED[changes.flip], _alone(changes), _mixing(changes)
    return _Augment(axes, alone, mixing, seed) if axes or alone or mixing else None


def _alone(changes: Changes) -> list[keras.layers.Layer]:
    """The layers that change each image by itself, flips aside. Pixels from outside repeat the border (`nearest`)."""
    fill: dict[str, Any] = {"fill_mode": "nearest"}
    chosen = []
    if changes.rotation:
        chosen.append(layers.RandomRotation(changes.rotation / 360, **fill))
    if changes.zoom:
        chosen.append(layers.RandomZoom(changes.zoom, **fill))
    if changes.translation:
        chosen.append(layers.RandomTranslation(changes.translation, changes.translation, **fill))
    if changes.contrast:
        chosen.append(layers.RandomContrast(changes.contrast, value_range=(0, 255)))
    if changes.rand_augment:
        chosen.append(layers.RandAugment((0, 255), num_ops=2, factor=changes.rand_augment))
    return chosen


def _mixing(changes: Changes) -> list[keras.layers.Layer]:
    chosen = []
    if changes.mixup:
        chosen.append(layers.MixUp(changes.mixup))
    if changes.cutmix:
        chosen.append(layers.CutMix(changes.cutmix))
    return chosen


class _Augment:
    """Keras's layers draw from random states that move with each call; these are set anew before each batch."""

    def __init__(
        self, axes: tuple[int, ...], alone: list[keras.layers.Layer], mixing: list[keras.layers.Layer], seed: int
    ) -> None:
        self.axes, self.alone, self.mixing, self.seed = axes, alone, mixing, seed

    def __call__(self, batch: Batch, epoch: int, step: int) -> Batch:
        for number, layer in enumerate([*self.alone, *self.mixing]):
            _reseed(layer, [self.seed, epoch, step, number])
        images: Any = _flipped(batch.images, self.axes, [self.seed, epoch, step])
        for layer in self.alone:
            images = layer(images, training=True)
        if not self.mixing:
            return batch._replace(images=keras.ops.convert_to_numpy(images) if self.alone else images)
        # Weights ride along as a weighted label: mixing is linear, so the mixed weight is the sum of the row.
        data = {"images": images, "labels": batch.labels * batch.weights[:, None]}
        for layer in self.mixing:
            data = layer(data, training=True)
        weighted = keras.ops.convert_to_numpy(data["labels"])
        weights = weighted.sum(axis=1)
        return Batch(keras.ops.convert_to_numpy(data["images"]), weighted / weights[:, None], weights)


def _flipped(images: np.ndarray, axes: tuple[int, ...], parts: list[int]) -> np.ndarray:
    """Mirror about half the images along each axis. RandomFlip does the same at ten times the cost."""
    if not axes:
        return images
    turned = np.random.default_rng(parts).random((len(images), len(axes))) < 0.5
    flipped = np.empty_like(images)
    for image, target, turns in zip(images, flipped, turned, strict=True):
        along = tuple(axis - 1 for axis, turn in zip(axes, turns, strict=True) if turn)
        target[:] = np.flip(image, along) if along else image
    return flipped


def _reseed(layer: keras.layers.Layer, parts: list[int]) -> None:
    states = [variable for variable in layer.variables if variable.name == "seed_generator_state"]
    draws = np.random.default_rng(parts).integers(0, 2**32, (len(states), 2), np.uint32)
    for state, draw in zip(states, draws, strict=True):
        state.assign(draw)
