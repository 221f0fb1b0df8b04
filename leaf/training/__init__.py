"""Training: data set, augmentation, optimizer, early stopping, checkpoint; on any backend of Keras 3."""

from leaf.training.checkpoint import fix_seeds
from leaf.training.dataset import Dataset
from leaf.training.recipe import Recipe
from leaf.training.trainer import Result, train, train_probe

__all__ = ["Dataset", "Recipe", "Result", "fix_seeds", "train", "train_probe"]
