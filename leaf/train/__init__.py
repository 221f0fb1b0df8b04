"""Training: data set, augmentation, optimizer, early stopping, checkpoint; on any backend of Keras 3."""

from leaf.train.checkpoint import fix_seeds
from leaf.train.dataset import Dataset
from leaf.train.linear_probe import train_probe
from leaf.train.recipe import Recipe
from leaf.train.trainer import Result, train

__all__ = ["Dataset", "Recipe", "Result", "fix_seeds", "train", "train_probe"]
