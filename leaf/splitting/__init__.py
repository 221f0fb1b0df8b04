"""Train, validation and test: stratified, each group of images whole in one of them."""

from leaf.splitting.assign import SPLITS, split_images
from leaf.splitting.checks import check_splits, check_synthetic, shared_groups

__all__ = ["SPLITS", "check_splits", "check_synthetic", "shared_groups", "split_images"]
