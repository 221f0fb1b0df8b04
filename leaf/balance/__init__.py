"""Balance the training classes by SMOTE or oversampling."""

from leaf.balance.smote import interpolate, missing_images, plan_images

__all__ = ["interpolate", "missing_images", "plan_images"]
