"""Training: data set, augmentation, optimizer, early stopping, checkpoint; on any backend of Keras 3."""

from leaf.train.checkpoint import fix_seeds
from leaf.train.dataset import Dataset
from leaf.train.recipe import Recipe
from leaf.train.trainer import Result, train, train_probe

__all__ = ["Dataset", "Recipe", "Result", "fix_seeds", "train", "train_probe"]
