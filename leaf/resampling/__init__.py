"""Making the training classes equal: SMOTE with its parents kept, or copies."""

from leaf.resampling.smote import COLUMNS, METHODS, plan_images, synthesize

__all__ = ["COLUMNS", "METHODS", "plan_images", "synthesize"]
