"""Balance the training classes by SMOTE or by copies."""

from leaf.balance.smote import interpolate, missing_images, plan_images

__all__ = ["interpolate", "missing_images", "plan_images"]
