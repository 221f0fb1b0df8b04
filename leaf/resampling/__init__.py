"""Making the training classes equal: SMOTE with its parents kept, or copies."""

from leaf.resampling.plan import COLUMNS, METHODS, plan_images
from leaf.resampling.synthesis import synthesize

__all__ = ["COLUMNS", "METHODS", "plan_images", "synthesize"]
