"""Augmentation: random changes of the training images, the same for the same seed, epoch and step."""

from typing import Any

import cv2
import keras
import numpy as np
from keras import layers

from leaf.train.dataset import FULL, Augmenter, Batch
from leaf.train.distribution import undistributed
from leaf.train.recipe import Augmentation

_FLIP_AXES = {"none": (), "horizontal": (2,), "vertical": (1,), "both": (2, 1)}  # axes of (N, H, W, 3)


def make_augmenter(augmentation: Augmentation, seed: int) -> Augmenter | None:
    """The function that changes a batch, or None where there is no augmentation.

    The order is background, flip, rotation, zoom, translation, contrast, RandAugment, then MixUp and CutMix, which mix
    the labels (and weights) along with the images. Keras's RandAugment draws its two operations once a batch, their
    strength for each image. Of several processes each draws and mixes within its own share of the batch; flips alone
    are those of one process.
    """
    with undistributed():
        axes = _FLIP_AXES[augmentation.flip]
        single, mixing = _single_image_layers(augmentation), _mixing_layers(augmentation)
    swap = augmentation.background == "swap"
    return _LayerAugmenter(axes, single, mixing, seed, swap) if axes or single or mixing or swap else None


def _single_image_layers(augmentation: Augmentation) -> list[keras.layers.Layer]:
    """The layers that change each image by itself, without flips. Pixels from outside repeat the border (`nearest`)."""
    fill: dict[str, Any] = {"fill_mode": "nearest"}
    chosen = []
    if augmentation.rotation:
        chosen.append(layers.RandomRotation(augmentation.rotation / 360, **fill))
    if augmentation.zoom:
        chosen.append(layers.RandomZoom(augmentation.zoom, **fill))
    if augmentation.translation:
        chosen.append(layers.RandomTranslation(augmentation.translation, augmentation.translation, **fill))
    if augmentation.contrast:
        chosen.append(layers.RandomContrast(augmentation.contrast, value_range=(0, 255)))
    if augmentation.rand_augment:
        chosen.append(layers.RandAugment((0, 255), num_ops=2, factor=augmentation.rand_augment))
    return chosen


def _mixing_layers(augmentation: Augmentation) -> list[keras.layers.Layer]:
    chosen = []
    if augmentation.mixup:
        chosen.append(layers.MixUp(augmentation.mixup))
    if augmentation.cutmix:
        chosen.append(layers.CutMix(augmentation.cutmix))
    return chosen


class _LayerAugmenter:
    """Keras's layers draw from random states that change with each call; here they are set before each batch."""

    def __init__(
        self,
        flip_axes: tuple[int, ...],
        single: list[keras.layers.Layer],
        mixing: list[keras.layers.Layer],
        seed: int,
        swap: bool,
    ) -> None:
        self.flip_axes, self.single, self.mixing, self.seed, self.swap = flip_axes, single, mixing, seed, swap

    def __call__(self, batch: Batch, epoch: int, step: int, positions: np.ndarray | None = None) -> Batch:
        positions = np.arange(len(batch.images)) if positions is None else positions
        share = positions[:1].tolist() if positions[0] else []  # the first process draws as one alone does
        for number, layer in enumerate([*self.single, *self.mixing]):
            _set_seed(layer, [self.seed, epoch, step, number, *share])
        images: Any = batch.images
        if self.swap and batch.masks is not None:
            random = np.random.default_rng([self.seed, epoch, step, _BACKGROUND, *share])
            images = swap_backgrounds(images, batch.masks, random)
        images = _flip(images, self.flip_axes, [self.seed, epoch, step], positions)
        if self.single or self.mixing:
            images = images.astype(np.float32)
        for layer in self.single:
            images = layer(images, training=True)
        if not self.mixing:
            return batch._replace(images=keras.ops.convert_to_numpy(images) if self.single else images)
        # The weights are multiplied into the labels: mixing is linear, so the mixed weight is the sum of the row.
        data = {"images": images, "labels": batch.labels * batch.weights[:, None]}
        for layer in self.mixing:
            data = layer(data, training=True)
        weighted = keras.ops.convert_to_numpy(data["labels"])
        weights = weighted.sum(axis=1)
        return Batch(keras.ops.convert_to_numpy(data["images"]), weighted / weights[:, None], weights)


def _flip(images: np.ndarray, axes: tuple[int, ...], seed: list[int], positions: np.ndarray) -> np.ndarray:
    """Mirror about half of the images along each axis. RandomFlip does the same at ten times the cost.

    An image's draw goes by its place in the whole batch, whichever process holds it.
    """
    if not axes:
        return images
    chosen = (np.random.default_rng(seed).random((positions.max() + 1, len(axes))) < 0.5)[positions]
    flipped = np.empty_like(images)
    for image, target, flips in zip(images, flipped, chosen, strict=True):
        along = tuple(axis - 1 for axis, flip in zip(axes, flips, strict=True) if flip)
        target[:] = np.flip(image, along) if along else image
    return flipped


_BACKGROUND = 1000  # parts its draws from those of the layers, which are numbered
_RIM = np.ones((5, 5), np.uint8)  # masks are rough: so much around the leaf is taken for leaf when it is painted out


def swap_backgrounds(images: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Set about half of the leaves before the background of another image, whose own leaf is painted out.

    `images` (B, H, W, 3) in 0..255 and `masks` bool (B, H, W), true on the leaf. An image whose mask is all false, or
    fills it (`FULL`), stays as it is and lends no background. Each leaf keeps its place; images of any class lend.
    """
    share = masks.mean(axis=(1, 2))
    known = np.flatnonzero((share > 0) & (share < FULL))
    changed = images.copy()
    for place in known[random.random(len(known)) < 0.5].tolist():
        lender = int(random.choice(known))
        if lender != place:
            ground = without_leaf(images[lender], masks[lender])
            changed[place] = np.where(masks[place][..., None], images[place], ground)
    return changed


def without_leaf(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) in 0..255 with its leaf, where `mask` (H, W) is true, painted over from around it, uint8
    (Telea 2004). A leaf that fills the image (`FULL`) is not painted over: nothing is around it."""
    covered = cv2.dilate(mask.astype(np.uint8), _RIM)
    return cv2.inpaint(np.rint(image).astype(np.uint8), covered, 3, cv2.INPAINT_TELEA)


def _set_seed(layer: keras.layers.Layer, seed: list[int]) -> None:
    states = [variable for variable in layer.variables if variable.name == "seed_generator_state"]
    draws = np.random.default_rng(seed).integers(0, 2**32, (len(states), 2), np.uint32)
    for state, draw in zip(states, draws, strict=True):
        state.assign(draw)
