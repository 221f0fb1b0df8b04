"""Making the training classes equal: SMOTE with its parents kept, or copies."""

from leaf.resampling.smote import interpolate, plan_images

__all__ = ["interpolate", "plan_images"]
