"""Making the training classes equal: SMOTE with its parents kept, or copies."""

from leaf.resampling.smote import interpolate, missing_images, plan_images

__all__ = ["interpolate", "missing_images", "plan_images"]
