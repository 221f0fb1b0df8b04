"""Training: schedules, batches, augmentation, early stopping, resume; on any backend of Keras 3."""

from leaf.training.dataset import Examples
from leaf.training.recipe import Recipe
from leaf.training.state import fix_seeds
from leaf.training.trainer import Result, train

__all__ = ["Examples", "Recipe", "Result", "fix_seeds", "train"]
