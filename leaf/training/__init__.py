"""Training: schedules, batches, augmentation, early stopping, resume; on any backend of Keras 3."""

from leaf.training.determinism import fix_seeds
from leaf.training.epochs import Result
from leaf.training.examples import Examples
from leaf.training.fitting import train
from leaf.training.recipe import Recipe

__all__ = ["Examples", "Recipe", "Result", "fix_seeds", "train"]
