"""Training on any Keras backend: data set, augmentation, optimizer, early stopping, checkpoint."""

from leaf.train.dataset import Dataset
from leaf.train.linear_probe import train_probe
from leaf.train.reproducibility import fix_seeds
from leaf.train.trainer import Result, train

__all__ = ["Dataset", "Result", "fix_seeds", "train", "train_probe"]
