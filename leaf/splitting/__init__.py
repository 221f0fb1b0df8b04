"""Train, validation and test: stratified, each group of images whole in one of them."""

from leaf.splitting.checks import check_splits, check_synthetic, shared_groups
from leaf.splitting.split import SPLITS, fold_images, split_images

__all__ = [
    "SPLITS",
    "check_splits",
    "check_synthetic",
    "fold_images",
    "shared_groups",
    "split_images",
]
