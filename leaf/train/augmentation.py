"""Random augmentation of the training images, determined by the seed, epoch and step."""

from typing import Any

import cv2
import keras
import numpy as np
from keras import layers

from leaf.params import Augmentation
from leaf.train.dataset import Augmenter, Batch
from leaf.train.segmentation import FULL

_FLIP_AXES = {"none": (), "horizontal": (2,), "vertical": (1,), "both": (2, 1)}  # axes of (N, H, W, 3)


def make_augmenter(augmentation: Augmentation, seed: int) -> Augmenter | None:
    """Return a function that augments a batch, or None if no augmentation is set.

    Augmentations are applied in this order: background, flip, rotation, zoom, translation, contrast, RandAugment, MixUp
    and CutMix. The last two also mix labels and weights. Keras's RandAugment samples its two operations once per batch
    and their strength per image. With several processes, each augments its share of the batch, so only flips are the
    same as with one process.
    """
    if augmentation == Augmentation(flip="none"):
        return None
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)  # the layers run outside the training step
    augmenter = _LayerAugmenter(augmentation, seed)
    keras.distribution.set_distribution(distribution)
    return augmenter


class _LayerAugmenter:
    """Apply Keras augmentation layers, which are reseeded for each batch."""

    def __init__(self, augmentation: Augmentation, seed: int) -> None:
        a, fill = augmentation, {"fill_mode": "nearest"}  # repeat the border pixels
        single = [
            a.rotation and layers.RandomRotation(a.rotation / 360, **fill),
            a.zoom and layers.RandomZoom(a.zoom, **fill),
            a.translation and layers.RandomTranslation(a.translation, a.translation, **fill),
            a.contrast and layers.RandomContrast(a.contrast, value_range=(0, 255)),
            a.rand_augment and layers.RandAugment((0, 255), num_ops=2, factor=a.rand_augment),
        ]
        mixing = [a.mixup and layers.MixUp(a.mixup), a.cutmix and layers.CutMix(a.cutmix)]
        self.single: list[Any] = [layer for layer in single if layer]
        self.mixing: list[Any] = [layer for layer in mixing if layer]
        self.flip_axes, self.swap, self.seed = _FLIP_AXES[a.flip], a.background == "swap", seed

    def __call__(self, batch: Batch, epoch: int, step: int, positions: np.ndarray | None = None) -> Batch:
        positions = np.arange(len(batch.images)) if positions is None else positions
        # The first process draws the same random numbers as a run with a single process.
        share = positions[:1].tolist() if positions[0] else []
        for number, layer in enumerate([*self.single, *self.mixing]):
            states = [variable for variable in layer.variables if variable.name == "seed_generator_state"]
            random = np.random.default_rng([self.seed, epoch, step, number, *share])
            for state, draw in zip(states, random.integers(0, 2**32, (len(states), 2), np.uint32), strict=True):
                state.assign(draw)
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
        # Mix the labels multiplied by their weights. Mixing is linear, so each row sums to its mixed weight.
        data = {"images": images, "labels": batch.labels * batch.weights[:, None]}
        for layer in self.mixing:
            data = layer(data, training=True)
        weighted = keras.ops.convert_to_numpy(data["labels"])
        weights = weighted.sum(axis=1)
        return Batch(keras.ops.convert_to_numpy(data["images"]), weighted / weights[:, None], weights)


def _flip(images: np.ndarray, axes: tuple[int, ...], seed: list[int], positions: np.ndarray) -> np.ndarray:
    """Flip about half of the images along each axis, 10× as fast as RandomFlip.

    Whether an image is flipped depends on its position in the global batch.
    """
    if not axes:
        return images
    chosen = (np.random.default_rng(seed).random((positions.max() + 1, len(axes))) < 0.5)[positions]
    flipped = np.empty_like(images)
    for image, target, flips in zip(images, flipped, chosen, strict=True):
        along = tuple(axis - 1 for axis, flip in zip(axes, flips, strict=True) if flip)
        target[:] = np.flip(image, along) if along else image
    return flipped


_BACKGROUND = 1000  # index of the background swap in random seeds; layers use their own index
_RIM = np.ones((5, 5), np.uint8)  # masks are rough, so dilate them by two pixels before inpainting


def swap_backgrounds(images: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Paste about half of the leaves onto the backgrounds of other images, whose own leaves are inpainted.

    The other image may be of any class. `images` are (B,H,W,3) in 0..255 and `masks` bool (B,H,W), true on the leaf.
    Images whose mask is empty or covers at least `FULL` of the image are left unchanged, and their backgrounds are not
    used.
    """
    share = masks.mean(axis=(1, 2))
    known = np.flatnonzero((share > 0) & (share < FULL))
    changed = images.copy()
    for place in known[random.random(len(known)) < 0.5].tolist():
        other = int(random.choice(known))
        if other != place:
            background = without_leaf(images[other], masks[other])
            changed[place] = np.where(masks[place][..., None], images[place], background)
    return changed


def without_leaf(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Inpaint the leaf, where `mask` is true, in an image (H,W,3) in 0..255 (Telea 2004), and return uint8."""
    covered = cv2.dilate(mask.astype(np.uint8), _RIM)
    return cv2.inpaint(np.rint(image).astype(np.uint8), covered, 3, cv2.INPAINT_TELEA)
