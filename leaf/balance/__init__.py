"""Making the training classes equal: SMOTE with its parents kept, or copies."""

from leaf.balance.smote import interpolate, missing_images, plan_images

__all__ = ["interpolate", "missing_images", "plan_images"]
